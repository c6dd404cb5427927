"""Pull mode with a database, a target, a state and a clock that do as a test says."""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from compiled import each_way
from dues import Echo
from openanomaly.core.frames import DueFrame, ForecastFrame, SampleFrame, ScoreFlag, ScoreFrame
from openanomaly.core.pipelines.pipeline import Pipeline, ScoreOptions
from openanomaly.core.ports.tsdb_client import Samples, Written
from openanomaly.core.scoring import LEVELS
from openanomaly.core.series import decode_labels, encode_labels
from openanomaly.core.series_column import SeriesColumn
from openanomaly.core.services.inference_loop import InferenceLoop
from openanomaly.core.services.local import LocalScoring
from openanomaly.core.services.pull_report import PullOptions, Report
from openanomaly.core.services.pull_state import PullState
from openanomaly.core.services.shares import LEAST_SERIES
from openanomaly.core.windows.admission import Budget
from openanomaly.core.windows.partition import Partition
from openanomaly.core.windows.plan import plan
from openanomaly.errors import QueryRejectedError, TsdbUnavailableError
from waves import said

__all__ = ["each_way"]

STEP_MS = 10_000
LATENESS_MS = 3_000
START_MS = 1_700_000_000_000 // STEP_MS * STEP_MS
BLOCKS = [encode_labels((("mode", mode),)) for mode in ("idle", "user", "system")]
HISTORY = 64 + 3
Value = Callable[[bytes, int], float | None]


def pipeline(name: str = "p", query: str = "good", **options: Any) -> Pipeline:
    given = {
        "step_s": STEP_MS / 1000, "lateness_s": LATENESS_MS / 1000, "context": 64, "min_context": 4,
        "horizon": 8, "forecast_every": 4, "score": ScoreOptions(warmup=3, block=12),
    }  # fmt: skip
    return Pipeline.model_validate({"name": name, "query": query, **given, **options})


def wave(block: bytes, at_ms: int) -> float | None:
    """A value of a series at a step, the same whenever it is asked for."""
    seed = int.from_bytes(block[-2:], "little") * 1_000_003 + at_ms // STEP_MS
    noise = float(np.random.default_rng(seed).uniform(-0.1, 0.1))
    return 100_000 + float(np.sin(at_ms / STEP_MS / 5 + len(block))) + noise


class Jobs:
    """A Scheduler that runs nothing: period and offset by name."""

    def __init__(self) -> None:
        self.at: dict[str, tuple[int, int]] = {}

    def every(self, name: str, period_ms: int, offset_ms: int, job: Callable[[], None]) -> None:
        self.at[name] = period_ms, offset_ms

    def remove(self, name: str) -> None:
        del self.at[name]

    def start(self) -> None: ...

    def stop(self, timeout_s: float) -> bool:
        return True


@dataclass
class World:
    """A database, a target and a state."""

    blocks: Sequence[bytes] = tuple(BLOCKS)
    value: Value = wave
    query_error: Callable[[str, int], Exception | None] = lambda query, start_ms: None
    write_error: Exception | None = None
    save_error: Exception | None = None
    asked: list[tuple[str, int, int]] = field(default_factory=list)
    taken: list[ScoreFrame] = field(default_factory=list)
    states: dict[str, bytes] = field(default_factory=dict)
    reports: list[tuple[str, Report]] = field(default_factory=list)
    jobs: Jobs = field(default_factory=Jobs)
    now_ms: int = 0
    shown: str = "http://database"

    # TSDBClient
    def range_query(self, query: str, start_ms: int, end_ms: int, step_ms: int) -> Samples:
        assert start_ms % step_ms == 0
        self.asked.append((query, start_ms, end_ms))
        if (error := self.query_error(query, start_ms)) is not None:
            raise error
        times = range(start_ms, end_ms + 1, step_ms)
        found = [(r, t, self.value(b, t)) for r, b in enumerate(self.blocks) for t in times]
        there = [(r, t, v) for r, t, v in found if v is not None]
        row, at, value = zip(*there, strict=True) if there else ((), (), ())
        return Samples(
            list(self.blocks), np.array(row, np.uint32), np.array(at, np.int64), np.array(value, np.float64)
        )

    def instant_query(self, query: str, at_ms: int) -> Samples:
        raise NotImplementedError

    def raw_query(self, selector: str, start_ms: int, end_ms: int) -> Samples:
        raise NotImplementedError

    def write(self, frames: Sequence[ScoreFrame]) -> Written:
        if self.write_error is not None:
            raise self.write_error
        self.taken += frames
        scores = sum(len(frame.row) for frame in frames)
        return Written(scores, scores)

    def close(self) -> None: ...

    # StateStore
    def load(self, name: str) -> bytes | None:
        return self.states.get(name)

    def save(self, name: str, state: bytes) -> None:
        if self.save_error is not None:
            raise self.save_error
        self.states[name] = state

    # Observer
    def ran(self, pipeline: str, report: Report, pending: int, series: int, done_ms: int | None) -> None:
        self.reports.append((pipeline, report))

    def loop(self, *pipelines: Pipeline, engine: Echo | None = None, **options: Any) -> InferenceLoop:
        """A process that has just started."""
        engines = {"auto": engine or Echo()}
        loop = InferenceLoop(
            self,
            self,
            self.jobs,
            lambda of: LocalScoring([of], engines, 100),
            PullOptions(**options),
            self,
            now_ms=lambda: self.now_ms,
        )
        loop.define(pipelines or (pipeline(),))
        return loop

    def at(self, step: int, loop: InferenceLoop, *names: str) -> Report:
        """The report of a run that begins when `step` can be asked for."""
        self.now_ms = START_MS + step * STEP_MS + LATENESS_MS
        for name in names or ("p",):
            loop.run(name)
        return self.reports[-1][1]

    def steps(self) -> list[int]:
        """Steps whose scores were taken, ascending; those of each series are the same."""
        found = [
            sorted((t - START_MS) // STEP_MS for _, b, t in said(self.taken) if b == block)
            for block in self.blocks
        ]
        assert all(steps == found[0] for steps in found)
        return found[0]


def by_the_stream(world: World, first: int, last: int, before_end_ms: int = 1) -> dict[Any, Any]:
    """What the roles say of samples so long before the end of each step; every record written and read."""
    watched = pipeline().model_copy(
        update={"query": None, "selector": '{mode!=""}', "transform": "none", "aggregate": "last"}
    )
    partition, out, engine = Partition(0, plan([watched]), Budget(100)), [], Echo()
    partition.start()
    column = SeriesColumn.of(list(world.blocks))
    for number, step in enumerate(range(first, last + 2)):
        end_ms = START_MS + step * STEP_MS
        values = [world.value(block, end_ms) for block in world.blocks]
        n = len(values)
        times = np.full(n, end_ms - before_end_ms, np.int64)
        frame = SampleFrame(column, np.arange(n, dtype=np.uint32), times, np.array(values, float), end_ms)
        output = partition.put(SampleFrame.decode(frame.encode()), number, 0)
        out += [ScoreFrame.decode(s.encode()) for s in output.scores]
        for due in (DueFrame.decode(d.encode()) for d in output.due):
            made = engine.predict(due.context.values, due.horizon, LEVELS)
            answer = ForecastFrame.pack(due, np.array(LEVELS, np.float32), made)
            partition.forecast(ForecastFrame.decode(answer.encode()), partition.position.forecasts, 0)
    return said(out)


def scored(frames: Iterable[ScoreFrame]) -> dict[Any, Any]:
    """As `said`, where a step may be there again with the same values."""
    out: dict[Any, Any] = {}
    for frame in frames:
        for key, value in said([frame]).items():
            assert out.setdefault(key, value) == value, f"{key} has other values than before"
    return out


@pytest.mark.parametrize("before_end_ms", [1, STEP_MS // 2, STEP_MS])
def test_scores_are_those_of_the_stream_with_the_times_of_the_grid(
    each_way: None, before_end_ms: int
) -> None:
    """Wherever in [t - step, t) a sample stands for the query's value at t: the score is of t."""
    world = World()
    loop = world.loop()
    for step in range(100, 160):
        assert world.at(step, loop).outcome == "ok"
    assert world.steps() == list(range(100, 160))
    stream = by_the_stream(world, 100 - HISTORY, 159, before_end_ms)
    mine = said(world.taken)
    assert mine == {key: value for key, value in stream.items() if key in mine}
    assert any(score[2] is not None for score in mine.values()), "there are forecasts"


def test_a_new_pipeline_reads_history_and_then_only_what_is_new() -> None:
    world = World()
    loop = world.loop()
    first = world.at(100, loop)
    assert world.asked == [("good", START_MS + (100 - HISTORY) * STEP_MS, START_MS + 100 * STEP_MS)]
    assert (first.steps, first.samples) == (HISTORY + 1, 3 * (HISTORY + 1))
    assert first.scores == first.history + first.written.scores
    assert world.steps() == [100], "the scores of before are nobody's news"
    assert world.at(100, loop).steps == 0, "asked again at the same time"
    world.at(101, loop)
    assert world.asked[1:] == [("good", START_MS + 101 * STEP_MS, START_MS + 101 * STEP_MS)]
    assert world.steps() == [100, 101]


@pytest.mark.parametrize("early_ms", [1, LATENESS_MS])
def test_a_step_is_asked_for_when_its_lateness_has_passed(early_ms: int) -> None:
    world = World()
    loop = world.loop()
    world.at(100, loop)
    world.now_ms += STEP_MS - early_ms
    loop.run("p")
    assert world.steps() == [100]
    world.now_ms += early_ms
    loop.run("p")
    assert world.steps() == [100, 101]


def test_history_is_bounded() -> None:
    world = World()
    world.at(100, world.loop(history_s=200))
    assert world.asked == [("good", START_MS + 80 * STEP_MS, START_MS + 100 * STEP_MS)]


@pytest.mark.parametrize("series_limit", [2_000_000 // 10, 2_000_000, 10_000_000])
def test_history_in_pieces_gives_the_same_scores(series_limit: int) -> None:
    whole, cut = World(), World()
    for world, options in ((whole, {}), (cut, {"series_limit": series_limit})):
        loop = world.loop(**options)
        for step in (100, 101, 130):
            world.at(step, loop)
    assert len(cut.asked) > len(whole.asked)
    assert cut.steps() == list(range(100, 131))
    assert said(cut.taken) == said(whole.taken)


def test_a_restart_changes_nothing(each_way: None) -> None:
    through, again = World(), World()
    loop = through.loop()
    for step in range(100, 140):
        through.at(step, loop)
        again.at(step, again.loop())
    assert again.steps() == list(range(100, 140))
    assert said(again.taken) == said(through.taken)
    assert len(again.asked) == 40, "history is read once"


def test_what_was_written_before_a_crash_is_written_again_with_the_same_values() -> None:
    through, crashed = World(), World()
    loop = through.loop()
    for step in range(100, 120):
        through.at(step, loop)
    loop = crashed.loop()
    for step in range(100, 120):
        crashed.save_error = OSError("no space left") if step in (104, 105, 111) else None
        outcome = crashed.at(step, loop).outcome
        assert outcome == ("crashed" if crashed.save_error else "ok")
    assert scored(crashed.taken) == said(through.taken)
    assert len(crashed.taken) > len(through.taken)


def test_steps_that_were_missed_are_caught_up_within_the_limit() -> None:
    world = World()
    world.at(100, world.loop(catch_up_s=200))
    report = world.at(120, world.loop(catch_up_s=200))
    assert (report.steps, report.skipped) == (20, 0)
    report = world.at(150, world.loop(catch_up_s=200))
    assert (report.steps, report.skipped) == (20, 10)
    assert world.steps() == [*range(100, 121), *range(131, 151)]
    assert world.asked[-1] == ("good", START_MS + 131 * STEP_MS, START_MS + 150 * STEP_MS)


def test_without_catching_up_the_newest_step_is_scored_still() -> None:
    world = World()
    loop = world.loop(catch_up_s=0)
    for step in (100, 101, 105):
        world.at(step, loop)
    assert world.steps() == [100, 101, 105]


def test_scores_wait_for_a_target_that_is_away_and_are_bounded() -> None:
    through, world = World(), World()
    loop = through.loop()
    for step in range(100, 130):
        through.at(step, loop)
    loop = world.loop(pending_limit=12)
    world.at(100, loop)
    state = world.states["p"]
    world.write_error = TsdbUnavailableError("the target answers 503")
    for step in range(101, 120):
        report = world.at(step, loop)
        assert (report.outcome, report.error) == ("target", "the target answers 503")
    assert loop.status()["p"]["pending_scores"] == 12, "four steps of three series; then it waits"
    assert loop.waits_for() == "the target answers 503"
    assert world.asked[-1][2] == START_MS + 104 * STEP_MS
    assert world.states["p"] == state, "what is not written is not done"
    world.write_error = None
    assert world.at(129, loop).outcome == "ok"
    assert loop.waits_for() is None
    assert world.steps() == list(range(100, 130))
    assert said(world.taken) == said(through.taken)


def test_scores_that_waited_when_the_process_ended_are_made_again() -> None:
    through, world = World(), World()
    loop = through.loop()
    for step in range(100, 120):
        through.at(step, loop)
    loop = world.loop()
    world.at(100, loop)
    world.write_error = TsdbUnavailableError("away")
    for step in range(101, 110):
        world.at(step, loop)
    world.write_error = None
    loop = world.loop()
    for step in range(110, 120):
        world.at(step, loop)
    assert said(world.taken) == said(through.taken)


def test_a_query_that_fails_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    def error(query: str, start_ms: int) -> Exception | None:
        return QueryRejectedError("refuses the query 'bad': 400 parse error") if query == "bad" else None

    world = World(query_error=error)
    loop = world.loop(pipeline("bad", "bad"), pipeline("worse", "worse"), pipeline())
    world.blocks = BLOCKS
    with caplog.at_level(logging.WARNING):
        for step in range(100, 105):
            world.at(step, loop, "bad", "p")
    outcomes = {(name, report.outcome) for name, report in world.reports}
    assert outcomes == {("bad", "refused"), ("p", "ok")}
    assert world.steps() == list(range(100, 105))
    assert [r.message for r in caplog.records] == ["pipeline bad: refuses the query 'bad': 400 parse error"]
    assert loop.waits_for() == "1 of 3 pipelines have not run yet"
    assert loop.status()["bad"]["error"] == "refuses the query 'bad': 400 parse error"


def test_a_crash_of_one_pipeline_is_its_own(caplog: pytest.LogCaptureFixture) -> None:
    world = World(query_error=lambda query, start_ms: RuntimeError("a mistake") if query == "bad" else None)
    loop = world.loop(pipeline("bad", "bad"), pipeline())
    world.at(100, loop, "bad", "p")
    assert [(name, report.outcome) for name, report in world.reports] == [("bad", "crashed"), ("p", "ok")]
    assert "a mistake" in caplog.text


def test_a_database_that_is_away_delays_and_loses_nothing() -> None:
    world = World()
    away = TsdbUnavailableError("no answer")
    loop = world.loop()
    world.query_error = lambda query, start_ms: away
    for step in (100, 101):  # from the beginning
        assert world.at(step, loop).outcome == "unavailable"
        assert loop.waits_for() == "no answer"
    world.query_error = lambda query, start_ms: None
    world.at(102, loop)
    assert world.steps() == [100, 101, 102]
    world.query_error = lambda query, start_ms: away
    world.at(103, loop)
    assert loop.waits_for() == "no answer"
    world.query_error = lambda query, start_ms: None
    world.at(110, loop)
    assert world.steps() == list(range(100, 111))
    first = min(start_ms for _, start_ms, _ in world.asked)
    assert first == START_MS + (100 - HISTORY) * STEP_MS


def test_an_outage_in_the_middle_of_history_does_not_bring_old_scores() -> None:
    world = World()
    calls = iter(range(100))
    world.query_error = lambda query, start_ms: TsdbUnavailableError("away") if next(calls) == 2 else None
    loop = world.loop(series_limit=200_000, catch_up_s=100)
    assert world.at(100, loop).outcome == "unavailable"
    assert world.states == {}
    assert world.at(150, loop).outcome == "ok"
    assert world.steps() == list(range(141, 151)), "within catch_up_s"
    starts = [start_ms for _, start_ms, _ in world.asked]
    assert starts[2] == starts[3], "it goes on where it was"


def test_a_series_without_labels_is_one() -> None:
    world = World(blocks=[b""])
    loop = world.loop()
    for step in range(100, 110):
        world.at(step, loop)
    assert {block for _, block, _ in said(world.taken)} == {b""}
    assert world.steps() == list(range(100, 110))


def test_steps_without_a_finite_value_are_missing() -> None:
    gaps = {102: None, 103: float("nan"), 104: float("inf"), 105: -float("inf")}

    def value(block: bytes, at_ms: int) -> float | None:
        step = (at_ms - START_MS) // STEP_MS
        return gaps[step] if step in gaps else wave(block, at_ms)

    world = World(value=value)
    loop = world.loop()
    counts = [world.at(step, loop).counts for step in range(100, 108)]
    assert world.steps() == [100, 101, 106, 107]
    assert [c["not_finite"] for c in counts] == [0, 0, 0, 3, 3, 3, 0, 0]
    assert [c["accepted"] for c in counts[1:]] == [3, 0, 0, 0, 0, 3, 3]


def test_a_series_that_comes_and_goes() -> None:
    def value(block: bytes, at_ms: int) -> float | None:
        is_there = block != BLOCKS[0] or at_ms < START_MS + 105 * STEP_MS
        return wave(block, at_ms) if is_there else None

    world = World(value=value)
    loop = world.loop(idle_ttl_s=60)
    for step in range(100, 105):
        world.at(step, loop)
    assert loop.status()["p"]["series"] == 3
    for step in range(105, 114):
        world.at(step, loop)
    assert loop.status()["p"]["series"] == 3, "ten steps at least"
    for step in range(114, 120):
        world.at(step, loop)
    assert loop.status()["p"]["series"] == 2


@pytest.mark.parametrize("changed", [{"query": "other"}, {"context": 128}])
def test_another_query_begins_anew(changed: dict[str, Any]) -> None:
    world = World()
    world.at(100, world.loop())
    report = world.at(101, world.loop(pipeline(**changed)))
    assert report.steps == changed.get("context", 64) + 3 + 1
    assert world.steps() == [100, 101]


def test_another_tolerance_goes_on() -> None:
    world = World()
    world.at(100, world.loop())
    changed = pipeline(score=ScoreOptions(warmup=3, block=12, tolerance=0.5))
    assert world.at(101, world.loop(changed)).steps == 1


@pytest.mark.parametrize("damage", ["cut", "flipped", "newer", "strange", "empty"])
def test_a_state_that_cannot_be_used_begins_anew(damage: str, caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.at(100, world.loop())
    state = world.states["p"]
    assert PullState.decode(state).done_ms == START_MS + 100 * STEP_MS
    head = len(b"openanomaly pull\n")
    world.states["p"] = {
        "cut": state[:-1],
        "flipped": state[:-9] + bytes([state[-9] ^ 1]) + state[-8:],
        "newer": state[:head] + b"\x02" + state[head + 1 :],
        "strange": b"something else that is long enough to be a state of a pipeline",
        "empty": b"",
    }[damage]
    report = world.at(101, world.loop())
    assert report.steps == HISTORY + 1
    assert world.steps() == [100, 101]
    assert "its state cannot be used" in caplog.text


def test_pipelines_of_the_stream_are_left_out() -> None:
    loop = World().loop(pipeline(), Pipeline(name="pushed", selector="up"))
    assert list(loop.status()) == ["p"]


def test_each_pipeline_runs_when_its_step_can_be_asked_for() -> None:
    world = World()
    world.loop(pipeline(), pipeline("late", step_s=5, lateness_s=12))
    assert world.jobs.at == {"p": (STEP_MS, LATENESS_MS), "late": (5000, 2000)}


def test_definitions_change_while_it_runs() -> None:
    through, world = World(), World()
    loop, other = world.loop(pipeline(), pipeline("gone")), through.loop()
    for step in (100, 101):
        world.at(step, loop, "gone", "p")
        through.at(step, other)
    read = len(world.asked)
    loop.define([pipeline(), pipeline("new", "new")])
    assert list(loop.status()) == list(world.jobs.at) == ["p", "new"]
    assert loop.waits_for() == "1 of 2 pipelines have not run yet"
    world.at(102, loop, "gone", "new", "p")
    through.at(102, other)
    assert [name for name, _ in world.reports[-2:]] == ["new", "p"], "no run of one that has gone"
    assert world.asked[read:][-1] == ("good", START_MS + 102 * STEP_MS, START_MS + 102 * STEP_MS)
    faster = pipeline(step_s=5)
    loop.define([faster])
    assert world.jobs.at == {"p": (5000, LATENESS_MS)}
    mine = {key: value for key, value in said(world.taken).items() if key[0] == "p"}
    assert mine == said(through.taken)


def test_a_pipeline_that_is_changed_goes_on_from_its_state() -> None:
    world = World()
    loop = world.loop()
    world.at(100, loop)
    loop.define([pipeline(labels={"team": "infra"})])
    assert world.at(101, loop).steps == 1
    assert world.steps() == [100, 101]


def test_shares_of_groups_are_those_of_the_scores_and_survive_a_restart() -> None:
    """Every step of two groups has its share, over a restart and steps that were missed."""
    jobs = ["a"] * 6 + ["b"] * 5 + ["c"] * 4
    blocks = tuple(encode_labels((("instance", str(i)), ("job", job))) for i, job in enumerate(jobs))

    def value(block: bytes, at_ms: int) -> float | None:
        spoiled = at_ms == START_MS + 140 * STEP_MS and block in blocks[:4]
        return 1e9 if spoiled else wave(block, at_ms)

    world = World(blocks=blocks, value=value)
    loop = world.loop(pipeline(group_by=["job"]))
    for step in (*range(100, 135), 143):
        assert world.at(step, loop).outcome == "ok"
    loop = world.loop(pipeline(group_by=["job"]))
    world.at(150, loop)

    shares: dict[tuple[int, str], float] = {}
    odd: dict[tuple[int, str], list[bool]] = defaultdict(list)
    scores: dict[tuple[int, str], float] = {}
    for f in world.taken:
        for i, row in enumerate(f.row.tolist()):
            key = (
                int((f.timestamp_ms[i] - START_MS) // STEP_MS),
                dict(decode_labels(f.series.block(row)))["job"],
            )
            if f.of_groups:
                assert key not in shares
                shares[key], scores[key] = float(f.value[i]), float(f.score[i])
            else:
                odd[key].append(bool(f.flags[i] & ScoreFlag.OPEN))
    assert shares == {key: sum(each) / len(each) for key, each in odd.items() if len(each) >= LEAST_SERIES}
    assert {step for step, _ in shares} == set(range(100, 151))
    assert {job for _, job in shares} == {"a", "b"}
    assert shares[140, "a"] >= 2 / 3
    assert scores[140, "a"] > 1
