"""A backtest says of every step what the stream says, to the bit."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from compiled import each_way
from dues import Echo
from openanomaly.adapters.statistical import StatisticalAdapter
from openanomaly.core.pipelines.mute import MuteWindow
from openanomaly.core.pipelines.pipeline import Pipeline, ScoreOptions
from openanomaly.core.recording import RecordedSeries
from openanomaly.core.scoring.reason import Reason
from openanomaly.core.series import encode_labels
from openanomaly.core.services.backtest import Backtest, ScoredSteps
from openanomaly.core.services.local import LocalScoring
from openanomaly.errors import ConfigError, ForecastError
from waves import START_MS, STEP_MS, Sample, in_frames, pipeline, said, waves

__all__ = ["each_way"]


def recording(samples: Sequence[Sample]) -> list[RecordedSeries]:
    out = []
    for name in dict.fromkeys(name for name, _, _ in samples):
        mine = [(t, v) for n, t, v in samples if n == name]
        out.append(
            RecordedSeries(
                (("__name__", name),),
                np.array([t for t, _ in mine], np.int64),
                np.array([v for _, v in mine], np.float64),
            )
        )
    return out


def patchy(steps: int, per_step: int) -> list[Sample]:
    """Gaps, short and longer than a window; samples without a value; series that begin and end somewhere."""
    samples = waves(steps, ("a", "b", "c_total", "d", "e"), per_step)
    last = {"e": START_MS + steps * STEP_MS // 2}
    first = {"b": START_MS + 37 * STEP_MS, "d": START_MS + 5 * STEP_MS}
    gaps = {"a": [(50, 53), (70, 71)], "c_total": [(60, 75)], "d": [(90, 90 + 80), (200, 201)]}
    rng = np.random.default_rng(3)
    out = []
    for name, t, value in samples:
        step = (t - START_MS) // STEP_MS
        if t < first.get(name, 0) or t > last.get(name, t):
            continue
        if any(begin <= step < end for begin, end in gaps.get(name, [])):
            continue
        if (name == "d" and 120 < step < 180) or rng.random() < 0.02:
            continue
        odd = rng.random()
        out.append((name, t, math.nan if odd < 0.02 else math.inf if odd < 0.025 else value))
    return out


def stream(of: Pipeline, samples: Sequence[Sample], engine: object = None) -> dict:
    """What LocalScoring says, which is what the roles say (test_local.py)."""
    scoring = LocalScoring([of], {"auto": engine or Echo()}, 100)  # type: ignore[dict-item]
    frames = [score for f in in_frames(samples, 5) for score in scoring.put(f, 0)]
    return said(frames + scoring.tick(samples[-1][1] + 1000 * STEP_MS))


def backtest(
    of: Pipeline, samples: Sequence[Sample], chunk_steps: int | None = None, engine: object = None
) -> tuple[dict, list[ScoredSteps], Backtest]:
    recorded = recording(samples)
    test = Backtest(of, {"auto": engine or Echo()}, recorded, chunk_steps=chunk_steps)  # type: ignore[dict-item]
    chunks = list(test.run())
    found = {}
    for c in chunks:
        for i, series in enumerate(c.series.tolist()):
            j = c.judged
            if not math.isfinite(j.score[i]):
                continue
            key = of.name, encode_labels(recorded[series].labels), int(c.end_ms[i])
            assert key not in found
            values = (j.score[i], c.value[i], c.expected[i], j.lower[i], j.upper[i], j.reason[i], j.flags[i])
            found[key] = tuple(None if x != x else float(x) for x in values)
    return found, chunks, test


@pytest.mark.parametrize("chunk_steps", [1, 13, 100, None])
@pytest.mark.parametrize("aggregate", ["last", "mean"])
def test_scores_are_those_of_the_stream_to_the_bit(aggregate: str, chunk_steps: int | None) -> None:
    samples = patchy(300, 3)
    of = pipeline(aggregate=aggregate)
    found, _, test = backtest(of, samples, chunk_steps)
    expected = stream(of, samples)
    assert len(expected) > 900
    assert found == expected
    assert {name for _, name, _ in found} == {
        encode_labels((("__name__", n),)) for n in ("a", "b", "c_total", "d", "e")
    }
    assert any(score[2] is not None for score in found.values()), "there are forecasts"
    assert any(score[5] for score in found.values()), "and anomalies"
    assert test.counts["counter_reset"] > 0


def test_series_come_in_the_order_of_the_recording_whichever_began_first() -> None:
    late = START_MS + 37 * STEP_MS
    recorded = recording([s for s in waves(200, ("a", "b", "d"), 1) if s[0] != "b" or s[1] >= late])
    recorded.sort(key=lambda series: -int(series.timestamp_ms[0]))
    assert recorded[0].timestamp_ms[0] > recorded[-1].timestamp_ms[0]
    for chunk in Backtest(pipeline(), {"auto": Echo()}, recorded, chunk_steps=70).run():  # type: ignore[dict-item]
        order = list(zip(chunk.series.tolist(), chunk.end_ms.tolist(), strict=True))
        assert order == sorted(order)
        for i, series in enumerate(chunk.series.tolist()):
            at = np.searchsorted(recorded[series].timestamp_ms, chunk.sample_ms[i])
            assert recorded[series].timestamp_ms[at] == chunk.sample_ms[i]
            assert recorded[series].value[at] == chunk.value[i]


@pytest.mark.parametrize("aggregate", ["sum", "count", "min", "max"])
def test_so_they_are_however_steps_are_made(aggregate: str) -> None:
    samples = patchy(150, 4)
    assert backtest(pipeline(aggregate=aggregate), samples, 40)[0] == stream(
        pipeline(aggregate=aggregate), samples
    )


@pytest.mark.parametrize(
    "score",
    [
        ScoreOptions(warmup=3, block=12, direction="above", tolerance=0.05),
        ScoreOptions(warmup=3, block=12, data_range=(0, 100_001)),
        ScoreOptions(warmup=3, block=12, min_deviation=0.5, memory=2),
        ScoreOptions(warmup=3, block=12, mute=(MuteWindow(start="22:20", end="22:25"),)),  # type: ignore[arg-type]
        ScoreOptions(warmup=3, block=12, mute=(MuteWindow(start="22:20", end="22:25", learn=False),)),  # type: ignore[arg-type]
    ],
)
def test_so_they_are_with_every_way_to_judge(score: ScoreOptions) -> None:
    samples = patchy(200, 1)
    found, _, _ = backtest(pipeline(score=score), samples, 50)
    assert found == stream(pipeline(score=score), samples)
    assert len(found) > 400


def test_so_they_are_with_the_product_s_own_options_and_an_engine_of_its_own() -> None:
    samples = waves(700, ("a", "b_total"), 1)
    of = Pipeline(name="p", step_s=STEP_MS / 1000)
    found, _, test = backtest(of, samples, engine=StatisticalAdapter(1))
    assert found == stream(of, samples, StatisticalAdapter(1))
    assert test.forecasts.forecast > 60


def test_an_engine_that_fails_leaves_the_old_forecast_in_force() -> None:
    def rule(last: list[float]) -> None:
        if any(1 < x % 7 < 2 for x in last):
            raise ForecastError("not this one", "engine")

    samples = [("a", START_MS + i * STEP_MS, i * 1.3) for i in range(200)]
    found, _, test = backtest(pipeline(), samples, 30, Echo(rule))
    assert found == stream(pipeline(), samples, Echo(rule))
    assert test.forecasts.failed["engine"] > 3


def test_every_step_has_a_row_also_in_warm_up() -> None:
    samples = patchy(100, 2)
    _, chunks, test = backtest(pipeline(), samples, 20)
    steps = {(n, t // STEP_MS) for n, t, v in samples if math.isfinite(v)}
    rows = [(int(s), int(e) // STEP_MS - 1) for c in chunks for s, e in zip(c.series, c.end_ms, strict=True)]
    names = list(dict.fromkeys(n for n, _, _ in samples))
    gauges = {(n, b) for n, b in steps if n != "c_total"}
    assert {(names[s], b) for s, b in rows if names[s] != "c_total"} == gauges
    assert len(rows) == len(set(rows))
    assert sum(int(np.isnan(c.judged.score).sum()) for c in chunks) == 5 * 3
    assert chunks[-1].done == test.samples == len(samples)
    for c in chunks:
        assert (c.sample_ms // STEP_MS == c.end_ms // STEP_MS - 1).all()


def test_a_gap_of_years_costs_nothing() -> None:
    samples = [("a", START_MS + i * STEP_MS, 1.0 + i % 3) for i in range(40)]
    later = [("a", t + 3 * 365 * 86_400_000, v) for _, t, v in samples]
    found, chunks, _ = backtest(pipeline(), samples + later, 20)
    assert found == stream(pipeline(), samples + later)
    assert len(chunks) == 4


def test_series_that_the_selector_does_not_want_are_counted() -> None:
    found, _, test = backtest(pipeline(selector='{__name__="a"}'), waves(30))
    assert {name for _, name, _ in found} == {encode_labels((("__name__", "a"),))}
    assert test.counts["unselected_series"] == 2


def test_what_cannot_be_is_refused() -> None:
    one = recording(waves(3, ("a",)))[0]
    with pytest.raises(ConfigError, match="two series"):
        Backtest(pipeline(), {}, [one, one])
    far = RecordedSeries(one.labels, one.timestamp_ms * 1000, one.value)
    with pytest.raises(ConfigError, match="1970 to 2109"):
        Backtest(pipeline(), {}, [far])


def test_nothing_gives_nothing() -> None:
    assert backtest(pipeline(), [])[1] == []
    assert Reason(0).text == "normal"
