"""Any interleaving, duplication and splitting gives the windows of the slow reference."""

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openanomaly.core.windows.partition import Partition
from unit.core.windows import drive, strategies_windows
from unit.core.windows.reference import STALE, Sample, Steps, Tick

REASONS = (
    "accepted", "duplicate", "out_of_order", "late", "timestamp", "stale", "not_finite",
    "counter_start", "counter_reset",
)  # fmt: skip
AGGREGATES = ["mean", "last", "min", "max", "sum", "count"]


def reference(requests: list[list[tuple[str, Sample]] | Tick], aggregate: str) -> dict[str, Steps]:
    events: dict[str, list[Sample | Tick]] = defaultdict(list)
    for request in requests:
        if isinstance(request, Tick):
            for mine in events.values():
                mine.append(request)
        else:
            for name, sample in request:
                events[name].append(sample)
    return {
        name: Steps(10_000, aggregate, name.endswith("_total")).take(mine) for name, mine in events.items()
    }


def feed(partition: Partition, requests: list[list[tuple[str, Sample]] | Tick]) -> dict[str, list]:
    """What closed, per series."""
    (block,) = partition.blocks.values()
    closed = []
    offset = 0
    for request in requests:
        if isinstance(request, Tick):
            closed += drive.steps(block, partition.tick(request.now_ms))
        else:
            rows = [(name, s.timestamp_ms, s.value) for name, s in request]
            frame = drive.frame(rows, request[0][1].received_ms)
            closed += drive.steps(block, partition.put(frame, offset, 0))
            offset += 1
    names = {drive.row_of(block, n): n for n in strategies_windows.NAMES if drive.row_of(block, n) >= 0}
    out: dict[str, list] = {name: [] for name in names.values()}
    for row, bucket, value in closed:
        out[names[row]].append((bucket, value))
    return out


@pytest.mark.parametrize("aggregate", AGGREGATES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_windows_are_those_of_the_reference(aggregate: str, data: st.DataObject) -> None:
    requests = data.draw(strategies_windows.requests())
    partition = drive.partition(drive.pipeline(aggregate=aggregate))
    (block,) = partition.blocks.values()

    closed = feed(partition, requests)

    expected = reference(requests, aggregate)
    counts: Counter[str] = Counter()
    for name, steps in expected.items():
        assert [b for b, _ in closed[name]] == [b for b, _ in steps.closed], name
        np.testing.assert_allclose(
            [v for _, v in closed[name]], [v for _, v in steps.closed], rtol=1e-6, atol=1e-6
        )
        if steps.closed:
            np.testing.assert_allclose(drive.window(block, name), steps.window(64), rtol=1e-6, atol=1e-6)
        counts += steps.counts
    assert {r: block.counts[r] for r in REASONS} == {r: counts[r] for r in REASONS}


@settings(max_examples=60, deadline=None)
@given(requests=strategies_windows.requests(), limit=st.integers(1, 7), bare=st.integers(2, 9))
def test_samples_in_are_accepted_or_dropped_for_a_reason(requests: list, limit: int, bare: int) -> None:
    """Late and repeated ones, ones beyond `max_series`, and ones without labels."""
    pipelines = (
        drive.pipeline(),
        drive.pipeline("slow", step_s=60, selector='{__name__!="large"}'),
    )
    partition = drive.partition(*pipelines, limit=limit)

    sent = 0
    for offset, request in enumerate(requests):
        if isinstance(request, Tick):
            partition.tick(request.now_ms)
            continue
        frame = drive.frame([(n, s.timestamp_ms, s.value) for n, s in request])
        partition.put(drive.unlabelled(frame) if offset % bare == 0 else frame, offset, 0)
        sent += len(request)

    for block in partition.blocks.values():
        assert block.counts["in"] == sent
        assert block.counts["accepted"] + drive.dropped(block.counts) == sent


def test_every_reason_to_drop_a_sample_is_counted_as_itself() -> None:
    pipelines = drive.pipeline("all", selector='{__name__!="unwanted"}')
    partition = drive.partition(pipelines, limit=2)
    start_ms, nan = 1_700_000_000_000, float("nan")
    frames = [
        drive.frame([("a", start_ms, 1.0), ("b_total", start_ms, 9.0)]),
        drive.frame([("a", start_ms, 1.0)]),
        drive.frame([("a", start_ms - 1, 1.0), ("a", -5, 1.0)]),
        drive.frame([("b_total", start_ms + 100, 3.0), ("b_total", start_ms + 200, 5.0)]),
        drive.frame([("a", start_ms + 5_000, nan), ("a", start_ms + 6_000, STALE)]),
        drive.frame([("unwanted", start_ms, 1.0), ("c", start_ms, 1.0), ("c", start_ms + 1, 1.0)]),
    ]
    for offset, frame in enumerate(frames):
        partition.put(frame, offset, 0)
    partition.tick(start_ms + 60_000)
    partition.put(drive.frame([("a", start_ms + 7_000, 1.0)]), len(frames), 0)

    expected = {
        "in": 13, "accepted": 2, "duplicate": 1, "out_of_order": 1, "timestamp": 1, "counter_start": 1,
        "counter_reset": 1, "not_finite": 1, "stale": 1, "unselected": 1, "max_series": 2, "late": 1,
    }  # fmt: skip
    assert {reason: partition.counts[reason] for reason in expected} == expected
    assert partition.counts["accepted"] + drive.dropped(partition.counts) == 13


@settings(max_examples=40, deadline=None)
@given(samples=strategies_windows.series("late"))
def test_a_late_source_has_the_steps_of_a_live_one(samples: list[Sample]) -> None:
    """Ticks included: 90 s late, or a week, every step closes whole."""
    plain = [s for s in samples if 0 <= s.timestamp_ms < 1 << 42]
    results = []
    for delay_ms in (500, 90_000, 7 * 86_400_000):
        partition = drive.partition()
        (block,) = partition.blocks.values()
        out, clock = [], 0
        for offset, s in enumerate(plain):
            now_ms = max(clock, s.timestamp_ms) + delay_ms
            clock = max(clock, s.timestamp_ms)
            # Time passes in small ticks until the sample arrives.
            for tick in range(now_ms - 20_000, now_ms, 4_000):
                out += drive.steps(block, partition.tick(tick))
            row = ("late", s.timestamp_ms, s.value)
            out += drive.steps(block, partition.put(drive.frame([row], now_ms), offset, now_ms))
        results.append(repr(out))
    assert results[0] == results[1] == results[2]
