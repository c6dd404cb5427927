"""Any interleaving, duplication and splitting gives the windows of the slow reference."""

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openanomaly.core.windows.partition import Partition
from unit.core.windows import drive, strategies_windows
from unit.core.windows.reference import Sample, Steps, Tick

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
@given(requests=strategies_windows.requests())
def test_samples_in_are_accepted_or_dropped_for_a_reason(requests: list) -> None:
    pipelines = (
        drive.pipeline(),
        drive.pipeline("slow", step_s=60, selector='{__name__!="large"}'),
    )
    partition = drive.partition(*pipelines, limit=5)

    sent = 0
    for offset, request in enumerate(r for r in requests if not isinstance(r, Tick)):
        partition.put(drive.frame([(n, s.timestamp_ms, s.value) for n, s in request]), offset, 0)
        sent += len(request)

    for block in partition.blocks.values():
        assert block.counts["in"] == sent
        assert block.counts["accepted"] + drive.dropped(block.counts) == sent


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
