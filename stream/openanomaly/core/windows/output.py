"""What a partition says: records to recover from, contexts that are due, and scores."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.frames import ROW_BYTES, DueFrame, ScoreFlag, ScoreFrame
from openanomaly.core.group_frames import GroupNews
from openanomaly.core.windows.block import Block, Closing, Scored
from openanomaly.core.windows.plan import WatchedPipeline
from openanomaly.core.windows.records import Record
from openanomaly.core.windows.rows import STATE_PAGE, Rows

Emit = Literal["all", "episodes"]
_DUE_BYTES = 384 << 10
_SCORE_ROWS = 2048


@dataclass(slots=True)
class Output:
    """What to write, in this order: each list confirmed before the next is sent."""

    catalogue: list[Record] = field(default_factory=list)
    ring: list[Record] = field(default_factory=list)
    due: list[DueFrame] = field(default_factory=list)
    scores: list[ScoreFrame] = field(default_factory=list)
    groups: GroupNews = field(default_factory=GroupNews)

    def __bool__(self) -> bool:
        return bool(self.catalogue or self.ring or self.due or self.scores or self.groups)

    def add(self, after: "Output") -> None:
        """Take in an output that comes right behind this one."""
        self.catalogue += after.catalogue
        self.ring += after.ring
        self.due += after.due
        self.scores += after.scores
        self.groups.add(after.groups)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Row state to write; once confirmed, inputs before these offsets are not needed again."""

    records: list[Record]
    samples: int
    forecasts: int


def due_frames(block: Block, closings: list[Closing], partition: int, now_ms: int) -> Iterator[DueFrame]:
    """Contexts of the rows that are due, the newest of each row only, in frames below 400 KB."""
    for forecaster in block.plan.forecasters:
        parts = [(r, b) for c in closings for f, r, b in c.due if f == forecaster]
        if not parts:
            continue
        rows, bucket = (np.concatenate(x) for x in zip(*parts, strict=True))
        rows, last = np.unique(rows[::-1], return_index=True)
        bucket = bucket[::-1][last]
        size = max(1, _DUE_BYTES // (2 * block.spec.context + ROW_BYTES))
        for i in range(0, rows.size, size):
            r, b = rows[i : i + size], bucket[i : i + size]
            context, known = block.ring.contexts(r, b, block.catalogue.born[r])
            enough = known >= forecaster.min_context
            if not enough.all():
                if not enough.any():
                    continue
                r, b, context = r[enough], b[enough], context.take(np.flatnonzero(enough))
            block.counts["due"] += r.size
            yield DueFrame(
                partition=partition,
                block=block.uid,
                forecaster=forecaster.uid,
                model=forecaster.model,
                horizon=forecaster.horizon,
                step_ms=block.spec.step_ms,
                row=r.astype(np.uint32),
                generation=block.catalogue.generation[r],
                origin=b,
                context=context,
                closed_ms=now_ms,
                useful_until_ms=now_ms + forecaster.every * block.spec.step_ms,
            )


def emit_of(pipeline: WatchedPipeline, emit: Emit) -> Emit:
    """What is sent of a pipeline: what it says, or else what is said for all."""
    return pipeline.pipeline.output.emit or emit


def score_frames(block: Block, closings: list[Closing], emit_all: Emit, now_ms: int) -> Iterator[ScoreFrame]:
    """Scores to send: every one, or those of episodes. A step in warm-up has none."""
    for scoring in block.scorings:
        # Of groups there are few, and their share is told while they are too young for a score.
        emit = "all" if block.is_of_groups else emit_of(scoring.pipeline, emit_all)
        parts = [s for c in closings for s in c.scored if s.pipeline is scoring.pipeline]
        for s in parts:
            judged = s.judged
            block.counts["scored"] += int(np.isfinite(judged.score).sum())
            unforecast = judged.flags & ScoreFlag.NO_FORECAST != 0
            block.counts["unforecast"] += int((unforecast & np.isfinite(judged.score)).sum())
            none = np.isnan(judged.score)
            ignored = int((none & (judged.flags & ScoreFlag.MUTED != 0)).sum())
            block.counts["muted"] += ignored
            block.counts["warmup"] += int(none.sum()) - ignored
            block.counts["anomalous"] += int((judged.flags & ScoreFlag.OPEN != 0).sum())
            block.counts["episodes"] += int((judged.flags & ScoreFlag.START != 0).sum())
            send = np.isfinite(judged.score) | block.is_of_groups
            if emit == "episodes":
                send &= (judged.flags & (ScoreFlag.OPEN | ScoreFlag.END)) != 0
            at = np.flatnonzero(send)
            for part in _pages(s.rows, at):
                block.counts["emitted"] += part.size
                yield _frame(block, s, part, emit, now_ms)


def _pages(rows: Rows, at: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Split positions by state page where pages are well filled, else by count."""
    if not at.size:
        return
    page = rows[at] // STATE_PAGE
    groups = np.split(at, np.flatnonzero(np.diff(page)) + 1)
    rest = []
    for group in groups:
        if group.size >= STATE_PAGE // 4:
            yield group
        else:
            rest.append(group)
    if rest:
        left = np.concatenate(rest)
        for i in range(0, left.size, _SCORE_ROWS):
            yield left[i : i + _SCORE_ROWS]


def _frame(block: Block, s: Scored, at: NDArray[np.int64], emit: Emit, now_ms: int) -> ScoreFrame:
    j = s.judged
    flags = j.flags[at]
    if emit == "episodes":  # nothing follows the end of an episode: a marker stands there
        flags[flags & ScoreFlag.END != 0] |= np.uint8(ScoreFlag.SILENT)
    series, row = block.catalogue.series(s.rows[at])
    return ScoreFrame(
        pipeline=s.pipeline.name,
        step_ms=block.spec.step_ms,
        series=series,
        row=row,
        timestamp_ms=(s.bucket[at] + 1) * block.spec.step_ms,
        score=j.score[at],
        value=s.value[at],
        expected=np.stack([s.median[at], j.lower[at], j.upper[at]], axis=1),
        reason=j.reason[at],
        flags=flags,
        closed_ms=now_ms,
        of_groups=block.is_of_groups,
    )
