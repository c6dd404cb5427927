"""How many series a pipeline has in a partition, and how many of them can be judged: for the status page.

Told once a step. It is no function of the inputs' order as scores are: a worker that repeats a run may
tell it at other moments, and the newest one holds.
"""

from collections.abc import Iterator

import numpy as np

from openanomaly.core.census import Census
from openanomaly.core.frames import ScoreFrame
from openanomaly.core.presence import CENSUS_EVERY_MS, patience_ms
from openanomaly.core.windows.block import Block, Scoring
from openanomaly.core.windows.catalogue import FREE
from openanomaly.core.windows.output import Emit, emit_of
from openanomaly.core.windows.rows import NONE, Rows

_SOON_MS = 10_000


def census_frames(block: Block, emit: Emit, now_ms: int) -> Iterator[ScoreFrame]:
    """A census of each pipeline, if it is time."""
    if not block.rows or not _is_due(block, now_ms):
        return
    block.census_ms = now_ms
    rows = _there(block)
    for scoring in block.scorings:
        census = _census(block, scoring, rows[scoring.members[rows]], emit_of(scoring.pipeline, emit))
        scoring.closed = 0
        yield ScoreFrame.of_census(scoring.pipeline.name, block.spec.step_ms, census, now_ms)


def _is_due(block: Block, now_ms: int) -> bool:
    if block.census_ms is None or now_ms < block.census_ms:
        return True
    has_closed = any(scoring.closed for scoring in block.scorings)
    pause_ms = min(block.spec.step_ms, _SOON_MS) if has_closed else CENSUS_EVERY_MS
    return now_ms - block.census_ms >= pause_ms


def _there(block: Block) -> Rows:
    """Rows of series that had samples lately: not long before the newest of the block."""
    deadline = block.state["deadline_ms"][: block.rows]
    has_any = (deadline != NONE) & (block.catalogue.born[: block.rows] != FREE)
    newest = int(deadline.max(initial=0, where=has_any))
    return np.flatnonzero(has_any & (deadline >= newest - patience_ms(block.spec.step_ms)))


def _census(block: Block, scoring: Scoring, rows: Rows, emit: Emit) -> Census:
    closed = block.state["closed"][rows]
    left = scoring.pipeline.pipeline.score.warmup - scoring.state["age"][rows].astype(np.int64)
    is_judged = left <= 0
    has_forecast = block.bands[scoring.pipeline.forecaster.uid].has(rows, closed)
    newest = int(closed.max(initial=NONE))
    return Census(
        series=rows.size,
        judged=int(is_judged.sum()),
        unforecast=int((is_judged & ~has_forecast).sum()),
        steps_left=0 if is_judged.all() else int(left[~is_judged].min()),
        closed=scoring.closed,
        newest_ms=0 if newest == NONE else (newest + 1) * block.spec.step_ms,
        emits_all=emit == "all",
    )
