"""The production path in one object: when forecasts are in force, in which pieces samples come, restarts."""

from collections.abc import Iterable, Sequence

import numpy as np
import pytest

from compiled import each_way
from dues import Echo
from openanomaly.core.frames import DueFrame, ForecastFrame, SampleFrame, ScoreFrame
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.scoring import LEVELS
from openanomaly.core.services.local import LocalScoring, one_each
from openanomaly.core.windows.admission import Budget
from openanomaly.core.windows.partition import Partition
from openanomaly.core.windows.plan import plan
from openanomaly.errors import ForecastError, MalformedFrameError, UnknownVersionError
from waves import START_MS, STEP_MS, frame, in_frames, pipeline, said, waves

__all__ = ["each_way"]


def local(*pipelines: Pipeline, engine: Echo | None = None) -> LocalScoring:
    return LocalScoring(pipelines or (pipeline(),), {"auto": engine or Echo()}, 100)


def put_all(scoring: LocalScoring, frames: Iterable[SampleFrame]) -> list[ScoreFrame]:
    return [score for f in frames for score in scoring.put(f, 0)]


def by_records(pipelines: Sequence[Pipeline], frames: Iterable[SampleFrame]) -> list[ScoreFrame]:
    """Scores as the roles make them, with every record written and read."""
    partition, out, engine = Partition(0, plan(pipelines), Budget(100)), [], Echo()
    partition.start()
    for number, samples in enumerate(frames):
        output = partition.put(SampleFrame.decode(samples.encode()), number, 0)
        out += [ScoreFrame.decode(s.encode()) for s in output.scores]
        for due in (DueFrame.decode(d.encode()) for d in output.due):
            made = engine.predict(due.context.values, due.horizon, LEVELS)
            answer = ForecastFrame.pack(due, np.array(LEVELS, np.float32), made)
            partition.forecast(ForecastFrame.decode(answer.encode()), partition.position.forecasts, 0)
    return out


@pytest.mark.parametrize("aggregate", ["last", "mean"])
def test_scores_are_those_of_the_roles_to_the_bit(aggregate: str) -> None:
    samples, of = waves(60), pipeline(aggregate=aggregate)
    expected = said(by_records([of], in_frames(samples, 3)))
    found = said(put_all(local(of), in_frames(samples, 3)))
    assert len(expected) > 150
    assert found == expected
    assert any(score[2] is not None for score in found.values()), "there are forecasts"


@pytest.mark.parametrize("size", [1, 7, 100, 10_000])
@pytest.mark.parametrize("aggregate", ["last", "mean", "sum", "count", "min", "max"])
def test_it_does_not_matter_in_which_pieces_samples_come(aggregate: str, size: int) -> None:
    samples, of = waves(40, per_step=5), pipeline(aggregate=aggregate)
    expected = said(put_all(local(of), in_frames(samples, 3)))
    assert said(put_all(local(of), in_frames(samples, size))) == expected


def test_a_forecast_is_in_force_from_the_step_after_the_one_it_was_made_at() -> None:
    of = pipeline(forecast_every=1, min_context=2)
    samples = [("a", START_MS + i * STEP_MS, float(i)) for i in range(12)]
    found = said(put_all(local(of), [frame(samples)]))
    # Echo expects the last value again: the step before, as soon as two are there.
    expected = [score[2] for _, score in sorted(found.items())]
    assert expected == [float(i - 1) for i in range(3, 11)]


def test_an_engine_that_fails_leaves_the_old_forecast_in_force() -> None:
    def rule(last: list[float]) -> None:
        if max(last) >= 6:
            raise ForecastError("no more", "engine")

    scoring = local(pipeline(forecast_every=1, min_context=2), engine=Echo(rule))
    samples = [("a", START_MS + i * STEP_MS, float(i)) for i in range(16)]
    found = [score[2] for _, score in sorted(said(put_all(scoring, [frame(samples)])).items())]
    assert found == [2, 3, 4, 5, 5, 5, 5, 5, 5, 5, 5, None], "until its horizon of 8 steps ends"
    assert scoring.counts["forecast_engine"] == 9
    assert scoring.counts["forecasts"] == 5
    assert "no more" in scoring.forecasts.error


def test_a_model_that_is_not_there_is_counted() -> None:
    scoring = local(pipeline(model="statistical"))
    assert put_all(scoring, in_frames(waves(30), 3))
    assert scoring.counts["forecast_unknown_model"] > 0
    assert scoring.counts["forecasts"] == 0


def test_several_pipelines_score_one_sample() -> None:
    two = pipeline(name="q", step_s=30, forecast_every=2)
    found = said(put_all(local(pipeline(), two), in_frames(waves(120), 50)))
    assert {name for name, _, _ in found} == {"p", "q"}


def test_a_tick_closes_the_last_step() -> None:
    scoring = local()
    samples = waves(30)
    before = put_all(scoring, in_frames(samples, 3))
    assert scoring.tick(START_MS) == []
    closed = said(scoring.tick(samples[-1][1] + 10 * STEP_MS))
    assert {t for _, _, t in closed} == {START_MS + 30 * STEP_MS}
    assert not closed.keys() & said(before).keys()


def test_a_restart_changes_no_bit() -> None:
    pipelines = pipeline(), pipeline(name="q", step_s=30, forecast_every=2, aggregate="mean")
    frames = list(in_frames(waves(120), 5))
    scoring = local(*pipelines)
    half = len(frames) // 2
    begun = put_all(scoring, frames[:half])
    scoring.tick(START_MS - 1)
    other = local(*pipelines)
    other.load(scoring.dump())
    assert other.partition.position.tick_ms == START_MS - 1
    assert other.partition.series == 6
    assert said(put_all(other, frames[half:])) == said(put_all(scoring, frames[half:]))
    assert begun
    # And once more: what was loaded can be dumped.
    third = local(*pipelines)
    third.load(other.dump())
    later = frame([(name, START_MS + 122 * STEP_MS, 5.0) for name in ("a", "b", "c_total")])
    assert said(third.put(later, 0)) == said(other.put(later, 0)) == said(scoring.put(later, 0)) != {}


def test_what_is_dumped_of_a_pipeline_that_is_gone_is_left_out() -> None:
    scoring = local(pipeline(), pipeline(name="q", step_s=30))
    put_all(scoring, in_frames(waves(40), 3))
    other = local(pipeline())
    other.load(scoring.dump())
    assert other.partition.series == 3


def test_a_damaged_dump_is_refused_and_changes_nothing() -> None:
    scoring = local()
    put_all(scoring, in_frames(waves(40), 3))
    good = scoring.dump()
    flipped = good[:-9] + bytes([good[-9] ^ 1]) + good[-8:]
    for bad in (b"", good[:30], good[:-1], flipped):
        with pytest.raises(MalformedFrameError):
            scoring.load(bad)
    newer = good[:20] + b"\x09" + good[21:]
    with pytest.raises(UnknownVersionError, match="version 9, this release reads up to 1"):
        scoring.load(newer)
    assert scoring.dump() == good


def test_one_each_keeps_the_order_of_arrival() -> None:
    samples = [("a", 3, 1.0), ("b", 1, 2.0), ("a", 1, 3.0), ("a", 2, 4.0), ("b", 5, 5.0)]
    parts = [
        [(int(r), int(t)) for r, t in zip(f.row, f.timestamp_ms, strict=True)]
        for f in one_each(frame(samples))
    ]
    assert parts == [[(0, 3), (1, 1)], [(0, 1), (1, 5)], [(0, 2)]]
    assert list(one_each(frame([]))) == []
