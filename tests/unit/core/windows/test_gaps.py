"""What is not there: missing steps, slow sources, staleness markers, counters that begin anew."""

import numpy as np
import pytest

from openanomaly.core.frames import SampleFrame
from openanomaly.core.pipelines.pipeline import ScoreOptions
from openanomaly.core.pipelines.selector import Selector
from openanomaly.core.series_column import SeriesColumn, SeriesKind
from openanomaly.core.windows.explain import explain
from openanomaly.core.windows.output import Output
from openanomaly.core.windows.partition import Partition
from unit.core.windows import drive
from unit.core.windows.reference import STALE

START_MS, STEP_MS = 1_700_000_000_000, 10_000
FIRST = START_MS // STEP_MS
ONE_BLOCK = ScoreOptions(warmup=3, block=1000)


def feed(partition: Partition, samples: list[drive.Row]) -> list[Output]:
    """Each sample in a frame of its own."""
    first = partition.position.samples
    return [partition.put(drive.frame([s], s[1]), first + i, s[1]) for i, s in enumerate(samples)]


def every(interval_ms: int, count: int, start_ms: int = START_MS) -> list[drive.Row]:
    return [("m", start_ms + i * interval_ms, float(i % 7)) for i in range(count)]


def steps(partition: Partition, outputs: list[Output]) -> list[tuple[int, float]]:
    """(step since the start, value) of what closed."""
    (block,) = partition.blocks.values()
    return [(bucket - FIRST, value) for out in outputs for _, bucket, value in drive.steps(block, out)]


def scores(outputs: list[Output]) -> list[tuple[int, float]]:
    """(step since the start, score)."""
    return [
        (end_ms // STEP_MS - 1 - FIRST, score)
        for out in outputs
        for frame in out.scores
        for end_ms, score in zip(frame.timestamp_ms.tolist(), frame.score.tolist(), strict=True)
    ]


def missing(partition: Partition) -> int:
    return partition.counts["missing_steps"]


def interval_s(partition: Partition) -> float:
    ((known,),) = explain(partition, Selector.parse('{__name__="m"}'), 1)
    return float(known["interval_s"])


# -- missing steps ---------------------------------------------------------------------------------


def test_a_missing_step_has_no_score_and_changes_none_that_follows() -> None:
    rng = np.random.default_rng(1)
    values = rng.standard_normal(80) + 5 * (np.arange(80) == 70)
    gap = slice(40, 46)

    def life(skipped: int) -> list[tuple[int, float]]:
        partition = drive.partition(drive.pipeline(score=ONE_BLOCK))
        at = np.arange(80) + np.where(np.arange(80) < gap.start, 0, skipped)
        samples = [("m", START_MS + int(i) * STEP_MS, float(v)) for i, v in zip(at, values, strict=True)]
        return scores(feed(partition, samples))

    whole, gapped = life(0), life(gap.stop - gap.start)
    assert [step for step, _ in gapped if gap.start <= step < gap.stop] == []
    assert [score for _, score in gapped] == [score for _, score in whole]
    assert max(score for _, score in whole) > 1


def test_missing_steps_read_as_missing_in_the_window() -> None:
    partition = drive.partition()
    (block,) = partition.blocks.values()
    samples = every(STEP_MS, 10)
    feed(partition, samples[:4] + samples[7:])
    expected = [float("nan")] * 55 + [0, 1, 2, 3, *[float("nan")] * 3, 0, 1]
    np.testing.assert_array_equal(drive.window(block, "m"), expected[-64:])


@pytest.mark.parametrize(
    ("one_in", "first"),
    [(1, 63), (2, 126), (3, None)],
    ids=["every step", "every other step", "one step of three"],
)
def test_no_forecast_from_fewer_values_than_min_context(one_in: int, first: int | None) -> None:
    """64 of the 128 steps of a context must be there."""
    pipeline = drive.pipeline(context=128, min_context=64, forecast_every=1)
    partition = drive.partition(pipeline)
    due = [f for out in feed(partition, every(one_in * STEP_MS, 400 // one_in)) for f in out.due]
    asked = [int(origin) - FIRST for f in due for origin in f.origin]
    if first is None:
        assert asked == []
    else:
        assert asked == list(range(first, 400 - one_in, one_in))


# -- cadence ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("interval_ms", [1_000, 5_000, 10_000, 15_000, 30_000, 60_000])
def test_a_source_slower_than_the_step_misses_nothing(interval_ms: int) -> None:
    partition = drive.partition()
    closed = steps(partition, feed(partition, every(interval_ms, 60)))
    assert missing(partition) == 0
    assert interval_s(partition) == interval_ms / 1000
    assert len(closed) == len({i * interval_ms // STEP_MS for i in range(60)}) - 1


@pytest.mark.parametrize("interval_ms", [10_000, 30_000, 60_000])
def test_missing_is_judged_in_the_rows_own_interval(interval_ms: int) -> None:
    """Three scrapes that did not come are three missing steps, however long a scrape is."""
    partition = drive.partition()
    samples = every(interval_ms, 60)
    feed(partition, samples[:40] + samples[43:])
    assert missing(partition) == 3


def test_rows_have_intervals_of_their_own() -> None:
    partition = drive.partition()
    for i in range(90):
        at_ms = START_MS + i * STEP_MS
        rows = [("fast", at_ms, 1.0)] if i != 50 else []
        rows += [("slow", at_ms, 1.0)] if i % 6 == 0 else []
        partition.put(drive.frame(rows, at_ms), i, at_ms)
    assert missing(partition) == 1


def test_a_source_that_slows_down_is_soon_judged_by_its_new_interval() -> None:
    partition = drive.partition()
    feed(partition, every(STEP_MS, 50))
    later = every(3 * STEP_MS, 80, START_MS + 50 * STEP_MS)
    feed(partition, later[:40])
    before = missing(partition)
    feed(partition, later[40:])
    assert missing(partition) == before
    assert interval_s(partition) == pytest.approx(30, rel=0.05)


def test_a_long_silence_is_not_taken_for_a_slow_source() -> None:
    partition = drive.partition()
    samples = every(3 * STEP_MS, 163)
    feed(partition, samples[:40] + samples[160:])
    assert missing(partition) == 120
    assert interval_s(partition) < 45


# -- staleness markers -----------------------------------------------------------------------------


@pytest.mark.parametrize("aggregate", ["mean", "last", "min", "max", "sum", "count"])
def test_a_staleness_marker_is_no_value(aggregate: str) -> None:
    """Neither alone in its step nor beside a sample; the series goes on behind it."""
    partition = drive.partition(drive.pipeline(aggregate=aggregate))
    marked = [("m", START_MS + 2 * STEP_MS, STALE), ("m", START_MS + 3 * STEP_MS + 5_000, STALE)]
    samples = sorted([s for s in every(STEP_MS, 7) if s[1] != marked[0][1]] + marked, key=lambda s: s[1])
    one = 1.0 if aggregate == "count" else None
    closed = steps(partition, feed(partition, samples))
    assert closed == [(i, one or float(i)) for i in (0, 1, 3, 4, 5)]
    assert partition.counts["stale"] == 2


def test_after_a_staleness_marker_the_last_step_closes_by_the_clock_and_nothing_follows() -> None:
    partition = drive.partition(drive.pipeline(score=ONE_BLOCK))
    outputs = feed(partition, [*every(STEP_MS, 20), ("m", START_MS + 20 * STEP_MS, STALE)])
    outputs += [partition.tick(START_MS + (20 + i) * STEP_MS) for i in range(1, 30)]
    assert [step for step, _ in steps(partition, outputs)] == list(range(20))
    assert [step for step, _ in scores(outputs)] == list(range(3, 20))


# -- counters --------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0.0, 7.0, 49.0], ids=["to zero", "to a little", "to nearly as much"])
def test_a_counter_that_begins_anew_gives_no_value_for_that_sample(after: float) -> None:
    """Never a negative one, nor a zero, nor what it counted since it began."""
    partition = drive.partition()
    raw = [50.0 * i for i in range(1, 11)] + [after + 50.0 * i for i in range(10)]
    samples = [("m_total", START_MS + i * STEP_MS, v) for i, v in enumerate(raw)]
    closed = steps(partition, feed(partition, samples))
    assert closed == [(i, 5.0) for i in range(1, 19) if i != 10]
    assert partition.counts["counter_start"] == 1
    assert partition.counts["counter_reset"] == 1


def test_a_counter_goes_on_over_a_gap_and_a_marker() -> None:
    """Its rate is the mean over the time that was not seen."""
    partition = drive.partition()
    at = [0, 1, 2, 6, 7]
    samples = [("m_total", START_MS + i * STEP_MS, 50.0 * i) for i in at]
    samples.insert(3, ("m_total", START_MS + 3 * STEP_MS, STALE))
    assert steps(partition, feed(partition, samples)) == [(1, 5.0), (2, 5.0), (6, 5.0)]


def test_a_counter_goes_on_after_a_restart() -> None:
    first = drive.partition()
    samples = [("m_total", START_MS + i * STEP_MS, 50.0 * i) for i in range(12)]
    outputs = feed(first, samples[:6])
    again = drive.fresh()
    for record in [r for out in outputs for r in out.catalogue + out.ring] + first.checkpoint(0).records:
        again.restore(record.key, record.value)
    again.start()
    again.seek(6, 0, 6, 0)
    assert steps(again, feed(again, samples[6:])) == [(i, 5.0) for i in range(5, 11)]
    assert again.counts["counter_start"] == again.counts["counter_reset"] == 0


@pytest.mark.parametrize(
    ("transform", "kind", "name", "is_rate"),
    [
        ("auto", SeriesKind.UNKNOWN, "requests_total", True),
        ("auto", SeriesKind.UNKNOWN, "latency_sum", True),
        ("auto", SeriesKind.UNKNOWN, "temperature", False),
        ("auto", SeriesKind.COUNTER, "odd_name", True),
        ("auto", SeriesKind.GAUGE, "seats_total", False),
        ("rate", SeriesKind.GAUGE, "temperature", True),
        ("none", SeriesKind.COUNTER, "requests_total", False),
    ],
)
def test_what_is_a_counter_is_told_by_the_pipeline_then_metadata_then_the_name(
    transform: str, kind: SeriesKind, name: str, is_rate: bool
) -> None:
    partition = drive.partition(drive.pipeline(transform=transform))
    series = SeriesColumn.of([drive.label_block(name)], np.array([kind], np.uint8))
    outputs = []
    for i in range(4):
        at_ms = np.array([START_MS + i * STEP_MS])
        frame = SampleFrame(series, np.zeros(1, np.uint32), at_ms, np.array([20.0 * i]), int(at_ms[0]))
        outputs.append(partition.put(frame, i, int(at_ms[0])))
    expected = [(1, 2.0), (2, 2.0)] if is_rate else [(0, 0.0), (1, 20.0), (2, 40.0)]
    assert steps(partition, outputs) == expected
