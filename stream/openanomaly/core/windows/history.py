"""Samples of a long time to closed steps, all at once: what `Block.put` does frame by frame.

Samples come in chunks of time whose edges are edges of steps, so that no step is open between two
chunks. Every step closes as if its samples had come one at a time.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.windows import buckets
from openanomaly.core.windows.block import Block, stored_as
from openanomaly.core.windows.rows import Rows


@dataclass(frozen=True, slots=True)
class Steps:
    """N closed steps with finite values, (N,) each; rows ascend, and buckets within a row.

    Attributes:
        before: the bucket through which the row was closed before.
        sample_ms: timestamp of the newest sample of the step.
    """

    rows: Rows
    bucket: NDArray[np.int64]
    before: NDArray[np.int64]
    value: NDArray[np.float64]
    sample_ms: NDArray[np.int64]

    def take(self, at: NDArray[np.bool_] | NDArray[np.int64]) -> "Steps":
        """Some of them, in their order."""
        return Steps(self.rows[at], self.bucket[at], self.before[at], self.value[at], self.sample_ms[at])


def close(
    block: Block,
    row: Rows,
    timestamp_ms: NDArray[np.int64],
    value: NDArray[np.float64],
    start: int,
    stop: int,
) -> Steps:
    """Close all steps of the samples, and put them into the ring of the block.

    Args:
        row, timestamp_ms, value: (N,) samples, rows ascending, and times within a row.
        start, stop: samples are of buckets in [start, stop): at most as many as the ring has margin.
    """
    s, step_ms = block.state, block.spec.step_ms
    block.counts["in"] += row.size
    samples = buckets.usable(s, row, timestamp_ms, value, block.is_rate, step_ms, block.counts)
    found = _steps(samples, step_ms, block.spec.aggregate)
    if not found.rows.size:
        return found
    first = np.flatnonzero(np.diff(found.rows, prepend=-1))
    before = np.empty_like(found.bucket)
    before[1:] = found.bucket[:-1]
    before[first] = s["closed"][found.rows[first]]
    last = np.append(first[1:], found.rows.size) - 1
    s["closed"][found.rows[last]] = found.bucket[last]
    steps = Steps(found.rows, found.bucket, before, found.value, found.sample_ms)
    if not (finite := np.isfinite(found.value)).all():
        block.counts["overflow_steps"] += int((~finite).sum())
        steps = steps.take(finite)
    if steps.rows.size:
        stored = stored_as(steps.value, block.catalogue.base[steps.rows])
        block.ring.put_many(steps.rows, steps.bucket, stored, start, stop)
    block.counts["closed_steps"] += steps.rows.size
    return steps


def _steps(samples: buckets.Usable, step_ms: int, aggregate: str) -> Steps:
    """What each row gathered in each bucket, sample after sample; buckets without a value are left out."""
    row, bucket = samples.row, samples.timestamp_ms // step_ms
    new = samples.first.copy()
    new[1:] |= bucket[1:] != bucket[:-1]
    begin = np.flatnonzero(new)
    size = np.diff(begin, append=row.size)
    gathered, count = np.zeros(begin.size), np.zeros(begin.size, np.uint32)
    cells = np.arange(begin.size)
    # The first samples of all cells, their second ones, ...: the order in which sums are rounded.
    for k in range(int(size.max()) if size.size else 0):
        cells = cells[size[cells] > k]
        at = begin[cells] + k
        valid = samples.valid[at]
        some, at = cells[valid], at[valid]
        more = np.ones(at.size) if aggregate == "count" else samples.value[at]
        had = count[some] > 0
        total = more.copy()
        total[had] = buckets.merge(gathered[some[had]], more[had], aggregate)
        gathered[some] = total
        count[some] += np.uint32(1)
    there = np.flatnonzero(count > 0)
    at = begin[there]
    return Steps(
        row[at],
        bucket[at],
        np.empty(at.size, np.int64),
        buckets.finish(gathered[there], count[there], aggregate),
        samples.timestamp_ms[at + size[there] - 1],
    )
