"""The past of new series: steps, row state and scoring memory that they would have if they had been watched.

The past is learned aside, by a block of its own that takes the stored samples as they would have come. Then
the rows of the living block become what those of that one are, and the steps that have closed meanwhile are
put behind them. Like a change of pipelines that happens between two checkpoints (docs/decisions/0025).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.pipelines.mute import muted
from openanomaly.core.series import Ids
from openanomaly.core.windows import output, records
from openanomaly.core.windows.block import Block, Closing
from openanomaly.core.windows.catalogue import FREE
from openanomaly.core.windows.migrate import steps
from openanomaly.core.windows.output import Output
from openanomaly.core.windows.partition import Partition
from openanomaly.core.windows.plan import BlockPlan
from openanomaly.core.windows.rows import LATEST_MS, NEVER, NONE, STATE_PAGE, Rows, as_slice

_STEPS_AT_ONCE = 64


@dataclass(frozen=True)
class Newborn:
    """Rows of a block that have had no past when they began.

    Attributes:
        rows: (n,) ascending; `generation`, `ids`, `kind` and `base` are theirs, (n,) each.
        labels: n canonical label blocks.
        born: (n,) the first bucket of each.
        members: by pipeline of the block, which of them it selects, (n,) each.
    """

    plan: BlockPlan
    rows: Rows
    generation: NDArray[np.uint32]
    ids: Ids
    labels: list[bytes]
    kind: NDArray[np.uint8]
    base: NDArray[np.float64]
    born: NDArray[np.int64]
    members: list[NDArray[np.bool_]]

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, at: NDArray[np.int64]) -> "Newborn":
        """Some of them; `at` ascends."""
        return Newborn(
            self.plan,
            self.rows[at],
            self.generation[at],
            self.ids[at],
            [self.labels[i] for i in at.tolist()],
            self.kind[at],
            self.base[at],
            self.born[at],
            [member[at] for member in self.members],
        )

    @classmethod
    def of(cls, block: Block, rows: Rows) -> "Newborn":
        """What is to be known of `rows` (ascending) that are still there."""
        c = block.catalogue
        rows = rows[rows < block.rows]
        rows = rows[c.born[rows] != FREE]
        return cls(
            block.plan,
            rows,
            c.generation[rows].copy(),
            c.ids[rows].copy(),
            [c.labels[row] for row in rows.tolist()],
            c.kind[rows].copy(),
            c.base[rows].copy(),
            c.born[rows].copy(),
            [scoring.members[rows].copy() for scoring in block.scorings],
        )


@dataclass(frozen=True)
class Past:
    """What was learned: a block whose row i is of `newborn.rows[at[i]]`."""

    newborn: Newborn
    at: Rows
    block: Block


def learn(
    newborn: Newborn, row: NDArray[np.int64], timestamp_ms: NDArray[np.int64], value: NDArray[np.float64]
) -> Past:
    """Watch stored samples, those before the first bucket of their series.

    Args:
        row: (N,) index into the newborn, ascending.
        timestamp_ms, value: (N,), ascending in time for each of them.
    """
    step_ms = newborn.plan.spec.step_ms
    before = (timestamp_ms >= 0) & (timestamp_ms < newborn.born[row] * step_ms)
    row, timestamp_ms, value = row[before], timestamp_ms[before], value[before]
    at, first, place = np.unique(row, return_index=True, return_inverse=True)
    block = Block(newborn.plan)
    if at.size:
        block.catalogue.admit(
            newborn.ids[at],
            [newborn.labels[i] for i in at.tolist()],
            newborn.kind[at],
            timestamp_ms[first] // step_ms,
            newborn.base[at],
            block.ring.newest,
        )
        block.grow()
        block.fresh(np.arange(at.size), [member[at] for member in newborn.members])
        for part in _by_time(timestamp_ms, _STEPS_AT_ONCE * step_ms):
            block.put(place[part].astype(np.int64), timestamp_ms[part], value[part], 0)
        block.tick(LATEST_MS)
    return Past(newborn, at, block)


def _by_time(timestamp_ms: NDArray[np.int64], width_ms: int) -> Iterator[Rows]:
    """Positions of the samples of one stretch of time after the other."""
    stretch = timestamp_ms // width_ms
    order = np.argsort(stretch, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(stretch[order])) + 1)


def remember(partition: Partition, past: Past, now_ms: int) -> Output:
    """Give rows their past, as far as they still have the owner they had. What is to be written for that."""
    out = Output()
    newborn = past.newborn
    block = partition.blocks.get(newborn.plan.spec.uid)
    if block is None or not past.at.size:
        return out
    rows, of = _still_there(block, past)
    if not rows.size:
        return out
    c = block.catalogue
    since = list(steps(block.ring, rows, c.born[rows]))
    block.ring.copy(rows, past.block.ring, of)
    c.date_back(rows, past.block.catalogue.born[of])
    _row_state(block, rows, past.block, of)
    _scoring(block, rows, past.block, of)
    for some, bucket, value in since:
        block.ring.put(some, bucket, value)
        _learn_again(block, some, bucket, value + c.base[some])
    block.touched[rows // STATE_PAGE] = block.touched_cold[rows // STATE_PAGE] = True
    block.counts["backfilled"] += rows.size
    out.catalogue += records.catalogue_records(block)
    out.ring += records.ring_records(block, _closings(block, rows), partition.position)
    out.due += output.due_frames(block, [block.due_now(rows)], partition.number, now_ms)
    return out


def _closings(block: Block, rows: Rows) -> Iterator[Closing]:
    """The windows of `rows` as steps that close, missing ones too: the changelog may have another owner's."""
    ring = block.ring
    newest = ring.newest[rows]
    oldest = np.maximum(np.maximum(block.catalogue.born[rows], ring.first[rows]), newest - ring.length + 1)
    for bucket in range(int(oldest.min()), int(newest.max()) + 1):
        at = rows[(oldest <= bucket) & (bucket <= newest)]
        if at.size:
            yield Closing(at, np.full(at.size, bucket), ring.data[at, bucket % ring.slots], [])


def _still_there(block: Block, past: Past) -> tuple[Rows, Rows]:
    """Rows that have their owner and a step in the past, which comes in time, and their places in it."""
    newborn, at = past.newborn, past.at
    rows = newborn.rows[at]
    same = rows < block.rows
    same[same] = (block.catalogue.generation[rows[same]] == newborn.generation[at[same]]) & (
        block.catalogue.born[rows[same]] == newborn.born[at[same]]
    )
    same &= past.block.ring.newest[: at.size] > NEVER
    # Steps since then must all be at hand to be learned from again.
    closed = block.state["closed"][np.where(same, rows, 0)]
    same &= closed - newborn.born[at] < block.ring.length
    of = np.flatnonzero(same)
    return rows[of], of


def _row_state(block: Block, rows: Rows, past: Block, of: Rows) -> None:
    """What the living row does not know yet it has from its past."""
    mine, theirs = block.state, past.state
    for name, unknown in (("closed", NONE), ("interval_ms", 0.0), ("raw_ms", NONE)):
        new = mine[name][rows] == unknown
        mine[name][rows[new]] = theirs[name][of[new]]
        if name == "raw_ms":
            mine["raw"][rows[new]] = theirs["raw"][of[new]]


def _scoring(block: Block, rows: Rows, past: Block, of: Rows) -> None:
    known = {scoring.pipeline.uid: scoring for scoring in past.scorings}
    for scoring in block.scorings:
        if (theirs := known.get(scoring.pipeline.uid)) is None:
            continue  # a pipeline that came meanwhile
        for name, array in scoring.state.items():
            array[rows] = theirs.state[name][of]


def _learn_again(block: Block, rows: Rows, bucket: NDArray[np.int64], value: NDArray[np.float64]) -> None:
    """Steps that were judged without the past: their verdicts are out, and they are learned once more."""
    for scoring in block.scorings:
        at = np.flatnonzero(scoring.members[rows])
        if not at.size:
            continue
        none = np.full((at.size, 5), np.nan)
        mute = muted(scoring.pipeline.pipeline.score.mute, (bucket[at] + 1) * block.spec.step_ms)
        scoring.scorer.update(
            scoring.state, as_slice(rows[at]), bucket[at], value[at].astype(np.float64), none, mute
        )
