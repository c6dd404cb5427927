"""Scoring blocks: what a series' extremes were, block by block.

A block of `block` buckets files its maxima when the first step behind it is judged; the four
largest of each list stay for `memory` blocks. All rows of a page of 1,024 rows change blocks at the
same bucket, and pages at different ones: what is filed is written page by page.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.scoring.state import EPISODE, KEEP, NEVER, Rows, State, places, reset

PAGE = 1024

SETTLED = 2
"""Blocks from which on the reference is the second largest, and not the largest."""

_GOLDEN = 0.6180339887498949

# A row whose level is this many spreads away from its origin moves the origin: float32 has 24 bits.
_FAR = np.float32(4096)
_ULP = np.float32(1.2e-7)


def phase_of(rows: Rows, block: int) -> NDArray[np.int64]:
    """(n,) by how many buckets the blocks of a row start earlier than those of page 0."""
    page = rows // PAGE
    turn = page * _GOLDEN
    phase: NDArray[np.int64] = ((turn - np.floor(turn)) * block).astype(np.int64)
    return phase


def turn_over(
    state: State, rows: Rows, bucket: NDArray[np.int64], y: NDArray[np.float64], block: int, memory: int
) -> None:
    """Bring rows whose `bucket` lies behind their open block into the block that holds it."""
    phase = phase_of(rows, block)
    number = (bucket + phase) // block
    until = state["until"][rows]
    state["until"][rows] = (number + 1) * block - phase
    fresh = until == NEVER
    ended = np.where(fresh, number, (until + phase) // block - 1)
    passed = number - ended
    if (forgotten := passed > memory).any():
        # Nothing in memory to compare with: the series starts anew, warm-up included.
        reset(state, rows[forgotten], keep=("until", *EPISODE))
        fresh |= forgotten
    if fresh.any():
        state["origin"][rows[fresh]] = y[fresh]
    # A block of few steps would make a poor reference: the first one runs on until it is whole.
    filing = ~fresh & (state["age"][rows] >= block)
    if filing.any():
        at = rows[filing]
        _file(state, at, ended[filing], passed[filing], memory)
        _move_origin(state, at)


def _file(state: State, rows: Rows, ended: NDArray[np.int64], passed: NDArray[np.int64], memory: int) -> None:
    """File the open maxima as those of block `ended`; the present block is `passed` blocks later."""
    top, when = places(state["top"]), places(state["when"])
    value = np.concatenate([top[:, :, rows], places(state["open"])[None][:, :, rows]])  # (KEEP + 1, LISTS, n)
    block16 = ended.astype(np.uint16)
    number = np.concatenate([when[:, :, rows], np.broadcast_to(block16, (1, *value.shape[1:]))])
    value[0] = np.where(value[0] == np.inf, -np.inf, value[0])
    age = (block16 - number).astype(np.int64) + passed
    value[age > memory] = -np.inf
    _sort(value, number)
    value, number = value[:KEEP], number[:KEEP]
    # Too few blocks for the second largest to mean anything: +inf holds the first place.
    few = value[SETTLED - 1] == -np.inf
    value[1:] = np.where(few, value[:-1], value[1:])
    number[1:] = np.where(few, number[:-1], number[1:])
    value[0] = np.where(few, np.inf, value[0])
    top[:, :, rows] = value
    when[:, :, rows] = number
    _reopen(state, rows)


def _reopen(state: State, rows: Rows) -> None:
    """A block begins with the step before it: where a series goes slowly, it goes on from there.

    An empty one would leave the second largest of what is filed: of a series that climbs, that is a whole
    block behind, and its next step would be an anomaly at each turn.
    """
    fresh, mean = places(state["open"]), places(state["mean"])
    fresh[:, rows] = -np.inf
    now = np.stack([state["last"][rows], mean[0, rows], mean[1, rows]])
    fresh[:3, rows], fresh[3:6, rows] = now, -now


def _sort(value: NDArray[np.float32], number: NDArray[np.uint16]) -> None:
    """Largest first along axis 0, the numbers with their values: bubbles, for five places are few."""
    last = len(value) - 1
    for end in range(last, 0, -1):
        for i in range(end):
            swap = value[i + 1] > value[i]
            _exchange(value, i, swap)
            _exchange(number, i, swap)


def _exchange(a: NDArray[Any], i: int, swap: NDArray[np.bool_]) -> None:
    upper = np.where(swap, a[i + 1], a[i])
    a[i + 1] = np.where(swap, a[i], a[i + 1])
    a[i] = upper


def _move_origin(state: State, rows: Rows) -> None:
    """Where a level has left its origin so far behind that float32 loses the signal, follow it."""
    mean, top, fresh = places(state["mean"]), places(state["top"]), places(state["open"])
    level = mean[1, rows]
    far = np.abs(level) > _FAR * mean[3, rows]
    if not far.any():
        return
    rows, level = rows[far], level[far]
    state["origin"][rows] += level.astype(np.float64)
    mean[:2, rows] -= level
    state["last"][rows] -= level
    fresh[0:3, rows] -= level
    fresh[3:6, rows] += level
    # What was filed knows no more than float32 did: its edges give way by so much.
    doubt = np.abs(level) * _ULP
    top[:, 0:3, rows] += doubt - level
    top[:, 3:6, rows] += doubt + level
