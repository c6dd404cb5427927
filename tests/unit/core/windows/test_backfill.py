"""Series that get their past are what they would be if they had been watched."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openanomaly.core.pipelines.pipeline import ScoreOptions
from openanomaly.core.windows.backfill import Newborn, learn, remember
from openanomaly.core.windows.output import Output
from openanomaly.core.windows.partition import Partition
from openanomaly.core.windows.rows import NONE
from unit.core.windows import drive, world

START_MS, STEP_MS = 1_700_000_000_000, 10_000
PIPELINES = (
    drive.pipeline(score=ScoreOptions(warmup=40, block=12)),
    drive.pipeline("few", selector='{__name__!="b"}', score=ScoreOptions(warmup=3, block=24)),
)
Sample = tuple[str, int, float]


def samples(names: str, first: int, last: int, seed: int = 1, gaps: float = 0.0) -> list[Sample]:
    """Series after series: a sample in each step but for some, of values that float32 has exactly."""
    out = []
    for name in names:
        rng = np.random.default_rng([seed, ord(name)])
        values = np.round(64 * (5 + rng.normal(0, 1, last))) / 64
        there = rng.random(last) >= gaps
        there[-1] = True  # who has no sample is not there
        times = [START_MS + i * STEP_MS + 300 for i in range(last)]
        out += [(name, times[i], float(values[i])) for i in range(first, last) if there[i]]
    return out


def feed(partition: Partition, some: list[Sample]) -> Output:
    """Take samples as they come, a step at a time."""
    out = Output()
    for t in sorted({at // STEP_MS for _, at, _ in some}):
        now_ms = (t + 1) * STEP_MS
        step = [each for each in some if each[1] // STEP_MS == t]
        out.add(partition.put(drive.frame(step, now_ms), partition.position.samples, now_ms))
    out.add(partition.tick(now_ms + 60_000))
    return out


def give_past(partition: Partition, names: str, past: list[Sample]) -> Output:
    (block,) = partition.blocks.values()
    newborn = Newborn.of(block, np.array(sorted(drive.row_of(block, name) for name in names)))
    place = {drive.label_block(name): newborn.labels.index(drive.label_block(name)) for name in names}
    rows = np.array([place[drive.label_block(name)] for name, _, _ in past], np.int64)
    order = np.argsort(rows, kind="stable")
    t, v = np.array([t for _, t, _ in past], np.int64), np.array([v for _, _, v in past], np.float64)
    return remember(partition, learn(newborn, rows[order], t[order], v[order]), 0)


@settings(max_examples=25, deadline=None)
@given(
    born=st.integers(1, 150),
    since=st.integers(1, 60),
    seed=st.integers(0, 5),
    gaps=st.sampled_from([0.0, 0.3]),
)
def test_windows_and_memory_are_those_of_a_series_that_was_watched(
    born: int, since: int, seed: int, gaps: float
) -> None:
    end = born + since
    watched, late = drive.partition(*PIPELINES), drive.partition(*PIPELINES)
    feed(watched, samples("ab", 0, end, seed, gaps))
    feed(late, samples("ab", born, end, seed, gaps))
    give_past(late, "ab", samples("ab", 0, end, seed, gaps))  # what is known already is left out

    expected, found = world.rows(watched), world.rows(late)
    assert expected.keys() == found.keys()
    for series, columns in expected.items():
        differing = {name for name in columns if columns[name] != found[series][name]}
        # The cadence is learned from the same samples in another division.
        assert differing <= {"0.interval_ms", "0.deadline_ms"}, series


def test_the_first_step_that_closes_has_a_score() -> None:
    partition = drive.partition(PIPELINES[0])
    some = samples("a", 0, 100)
    partition.put(drive.frame(some[-1:], some[-1][1]), 0, some[-1][1])
    out = give_past(partition, "a", some[:-1])
    assert [frame.row.tolist() for frame in out.due] == [[0]], "a forecast is asked for at once"

    (scores,) = partition.tick(some[-1][1] + 60_000).scores
    assert np.isfinite(scores.score).tolist() == [True]
    assert partition.counts["warmup"] == 0


def test_a_counter_goes_on_from_its_past() -> None:
    """Its first own step has a rate: against the last sample before it came."""
    partition = drive.partition(drive.pipeline(transform="rate"))
    partition.put(drive.frame([("a", START_MS + 100 * STEP_MS, 1000.0)]), 0, 0)
    past = [("a", START_MS + i * STEP_MS, 10.0 * i) for i in range(100)]
    give_past(partition, "a", past)
    partition.put(drive.frame([("a", START_MS + 101 * STEP_MS, 1010.0)]), 1, 0)
    partition.tick(START_MS + 200 * STEP_MS)

    (block,) = partition.blocks.values()
    known = np.array(drive.window(block, "a"))
    assert np.unique(known[np.isfinite(known)]).tolist() == [1.0]


def test_a_restart_finds_what_was_written_also_where_the_row_had_another_owner() -> None:
    partition = drive.partition(PIPELINES[0])
    out = feed(partition, samples("x", 0, 80))
    out.add(partition.evict(10**15, 1))
    out.add(feed(partition, samples("a", 90, 95)))
    out.add(give_past(partition, "a", samples("a", 0, 90, gaps=0.5)))
    (block,) = partition.blocks.values()
    assert block.catalogue.generation[:1].tolist() == [2]

    again = drive.fresh(PIPELINES[0])
    for record in [*out.catalogue, *out.ring, *partition.checkpoint(0).records]:
        again.restore(record.key, record.value)
    again.start()
    assert world.rows(again) == world.rows(partition)


def test_who_has_gone_meanwhile_gets_no_past() -> None:
    partition = drive.partition(PIPELINES[0])
    feed(partition, samples("ab", 90, 95))
    (block,) = partition.blocks.values()
    newborn = Newborn.of(block, np.array([0, 1]))
    past = samples("ab", 0, 90)
    rows = np.array([name == "b" for name, _, _ in past], np.int64)
    t, v = np.array([t for _, t, _ in past]), np.array([v for _, _, v in past])
    learned = learn(newborn, rows, t, v)
    gone = drive.row_of(block, "a")
    block.evict(np.array([gone]))

    remember(partition, learned, 0)

    assert partition.counts["backfilled"] == 1
    assert np.isfinite(drive.window(block, "b")).sum() == 64


def test_a_past_that_comes_too_late_changes_nothing() -> None:
    partition = drive.partition(PIPELINES[0])
    feed(partition, samples("a", 90, 160))

    assert not give_past(partition, "a", samples("a", 0, 90))
    assert partition.counts["backfilled"] == 0


def test_no_samples_before_its_first_step_change_nothing() -> None:
    partition = drive.partition(PIPELINES[0])
    feed(partition, samples("a", 90, 95))
    before = world.rows(partition)

    assert not give_past(partition, "a", samples("a", 90, 95))
    assert world.rows(partition) == before


@pytest.mark.parametrize("large", [5e9])
def test_large_values_keep_their_digits(large: float) -> None:
    partition = drive.partition(PIPELINES[0])
    partition.put(drive.frame([("a", START_MS + 90 * STEP_MS, large)]), 0, 0)
    give_past(partition, "a", [("a", START_MS + i * STEP_MS, large + i) for i in range(90)])
    (block,) = partition.blocks.values()
    assert block.state["closed"][0] > NONE
    assert drive.window(block, "a")[-64:] == [large + i for i in range(26, 90)]
