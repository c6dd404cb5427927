"""Groups of a pipeline's series in one partition: how many of each are in an episode, step by step.

Whoever owns a group adds up what the partitions tell of it (core/services/shares.py); the share becomes a
series of its own, `anomaly_rate`, which is scored as others are.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.frames import ScoreFlag
from openanomaly.core.group_frames import GroupCounts, GroupNews, Through
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.pipelines.selector import ANOMALY_RATE
from openanomaly.core.scoring.scorer import Judged
from openanomaly.core.series import canonical, decode_labels, encode_labels
from openanomaly.core.series_column import SeriesColumn, SeriesKind
from openanomaly.core.windows.rows import Rows

MOST_GROUPS = 10_000
"""Of a pipeline in a partition; series of further ones are in none."""
MOST_STEPS = 256
"""That are counted at a time, at least: of history that comes at once, the first ones are told early."""

DELAY_MS = 2_000
"""On their way samples of a punctual source may be, besides `lateness_s`: their rows close so much later."""

_UNKNOWN, _NONE, _REFUSED = -3, -2, -1


@dataclass(slots=True)
class _Step:
    """Counts by number of the group, since the last checkpoint."""

    first_ms: int
    """When its first series had a score, or the first one behind its end."""
    scored: NDArray[np.uint32]
    anomalous: NDArray[np.uint32]
    is_told: bool = False
    """All that is counted has been told."""
    is_final: bool = False
    """And that nothing more is expected."""


class Grouping:
    """The groups of a pipeline's series in one block."""

    def __init__(
        self, pipeline: Pipeline, capacity: int, outcomes: Counter[str], first: int | None = None
    ) -> None:
        """
        Args:
            outcomes: counts series in no group since there are too many as `ungrouped`.
            first: the first step that is counted; of those before it, series may have been counted already.
        """
        self.by = pipeline.group_by
        self._pipeline, self._step_ms = pipeline.name, pipeline.step_ms
        self.wait_for(pipeline.lateness_s)
        self._outcomes = outcomes
        self._first = first
        self._number = np.full(capacity, _UNKNOWN, np.int32)
        self._blocks: list[bytes] = []
        self._numbers: dict[bytes, int] = {}
        self._steps: dict[int, _Step] = {}
        self._through: int | None = None
        self._clock_ms = 0
        self._has_lost = False
        """Whether a group may have no series any more."""

    @property
    def row_bytes(self) -> int:
        """Bytes of a series."""
        return self._number.itemsize

    def wait_for(self, lateness_s: float) -> None:
        """Steps wait for another `lateness_s` from now on."""
        self._wait_ms = round(lateness_s * 1000) + DELAY_MS

    def grow(self, capacity: int) -> None:
        more = np.full(capacity - len(self._number), _UNKNOWN, np.int32)
        self._number = np.concatenate([self._number, more])

    def reset(self, rows: Rows) -> None:
        """Rows have a new owner, or none."""
        self._number[rows] = _UNKNOWN
        self._has_lost = True

    def count(
        self,
        rows: Rows,
        bucket: NDArray[np.int64],
        judged: Judged,
        labels: Sequence[bytes],
        now_ms: int,
    ) -> None:
        """Take steps that have just closed.

        Args:
            labels: label blocks by row.
        """
        # Ticks are of the time they were offered at: what they close must not look older than samples do.
        now_ms = self._clock_ms = max(self._clock_ms, now_ms)
        at = np.flatnonzero(np.isfinite(judged.score))
        if self._first is not None:
            at = at[bucket[at] >= self._first]
        number = self._numbers_of(rows[at], labels)
        if not (has := number >= 0).all():
            at, number = at[has], number[has]
        if not at.size:
            return
        is_open = judged.flags[at] & ScoreFlag.OPEN != 0
        bucket = bucket[at]
        if (bucket == bucket[0]).all():
            self._add(int(bucket[0]), number, is_open, now_ms)
            return
        for step in np.unique(bucket).tolist():
            some = bucket == step
            self._add(step, number[some], is_open[some], now_ms)

    def _add(self, bucket: int, number: NDArray[np.int32], is_open: NDArray[np.bool_], now_ms: int) -> None:
        n = len(self._blocks)
        step = self._steps.get(bucket)
        if step is None:
            step = self._steps[bucket] = _Step(now_ms, np.zeros(n, np.uint32), np.zeros(n, np.uint32))
        elif len(step.scored) < n:
            more = np.zeros(n - len(step.scored), np.uint32)
            step.scored = np.concatenate([step.scored, more])
            step.anomalous = np.concatenate([step.anomalous, more])
        if step.is_final:
            step.first_ms = now_ms
        step.is_told = step.is_final = False
        step.scored[:n] += np.bincount(number, minlength=n).astype(np.uint32)
        if is_open.any():
            step.anomalous[:n] += np.bincount(number[is_open], minlength=n).astype(np.uint32)

    # -- who is in which group -----------------------------------------------------------------

    def _numbers_of(self, rows: Rows, labels: Sequence[bytes]) -> NDArray[np.int32]:
        number = self._number[rows]
        new = rows[number == _UNKNOWN]
        if new.size:
            for row in new.tolist():
                self._number[row] = self._number_of(labels[row])
            number = self._number[rows]
        return number

    def _number_of(self, labels: bytes) -> int:
        """The group of a series; none if it has none of the labels."""
        found = [(name, value) for name, value in decode_labels(labels) if name in self.by]
        if not found:
            return _NONE
        block = encode_labels(canonical([("__name__", ANOMALY_RATE), ("pipeline", self._pipeline), *found]))
        number = self._numbers.get(block)
        if number is None:
            if len(self._blocks) >= MOST_GROUPS and self._has_lost:
                self._forget_empty()
            if len(self._blocks) >= MOST_GROUPS:
                self._outcomes["ungrouped"] += 1
                return _REFUSED
            number = self._numbers[block] = len(self._blocks)
            self._blocks.append(block)
        return number

    def _forget_empty(self) -> None:
        """Groups without series lose their number; series that found none may look again."""
        self._has_lost = False
        has = self._number >= 0
        used, number = np.unique(self._number[has], return_inverse=True)
        if used.size < len(self._blocks):
            self._number[self._number == _REFUSED] = _UNKNOWN
        self._number[has] = number
        self._blocks = [self._blocks[i] for i in used.tolist()]
        self._numbers = {block: i for i, block in enumerate(self._blocks)}
        for step in self._steps.values():
            known = used[used < len(step.scored)]
            step.scored, step.anomalous = step.scored[known], step.anomalous[known]

    # -- what is told --------------------------------------------------------------------------

    def tell_due(self, now_ms: int, part: int) -> GroupNews:
        """Steps that are complete as far as the wall clock tells.

        A step waits for `lateness_s`: after its end, or, where it is late as all of its source is, after its
        first series; then also for late ones before it, since a share that comes behind a newer one is of no
        use. What comes after that is told together with what was told of the step.
        """
        news = GroupNews()
        before_ms = 0
        for bucket, step in sorted(self._steps.items()):
            if step.is_final:
                continue
            due_ms, is_late = self._due(bucket, step)
            if is_late:
                before_ms = max(before_ms, due_ms)
                due_ms = min(before_ms, due_ms + self._wait_ms)
            if now_ms >= due_ms:
                if not step.is_told:
                    news.counts.append(self._tell(bucket, part, is_late=is_late))
                step.is_final = True
        through = (now_ms - self._wait_ms) // self._step_ms - 1
        if self._through is None or through > self._through:
            self._through = through
            news.through.append(Through(self._pipeline, self._step_ms, through))
        return news

    def _due(self, bucket: int, step: _Step) -> tuple[int, bool]:
        """When a step is complete, and whether it is late."""
        over_ms = (bucket + 1) * self._step_ms + self._wait_ms
        if step.first_ms < over_ms:
            return over_ms, False
        return step.first_ms + self._wait_ms, True

    def tell_overdue(self, part: int) -> list[GroupCounts]:
        """The first steps where there are too many; none as a rule."""
        most = max(MOST_STEPS, 2 * self._wait_ms // self._step_ms)
        if len(self._steps) <= most:
            return []
        final = [bucket for bucket, step in self._steps.items() if step.is_final]
        for bucket in sorted(final)[:-MOST_STEPS]:
            del self._steps[bucket]
        open_ = sorted(bucket for bucket, step in self._steps.items() if not step.is_final)
        told = []
        for bucket in open_[: len(open_) - most // 2] if len(open_) > most else ():
            told.append(self._tell(bucket, part, is_late=True))
            del self._steps[bucket]
        return told

    def tell_all(self, part: int) -> list[GroupCounts]:
        """Every step, where nothing comes later."""
        told = [
            self._tell(bucket, part, is_late=False)
            for bucket, step in sorted(self._steps.items())
            if not step.is_told
        ]
        self._steps.clear()
        return told

    def tell_so_far(self, now_ms: int, part: int) -> list[GroupCounts]:
        """What was counted and not told, before a checkpoint: what comes behind it is of another part."""
        told = []
        for bucket, step in sorted(self._steps.items()):
            if not step.is_told:
                due_ms, is_late = self._due(bucket, step)
                told.append(self._tell(bucket, part, is_late=is_late, due_in_ms=max(0, due_ms - now_ms)))
            if step.is_final:
                del self._steps[bucket]
            else:
                step.scored[:] = step.anomalous[:] = 0
                step.is_told = True
        return told

    def _tell(self, bucket: int, part: int, *, is_late: bool, due_in_ms: int = 0) -> GroupCounts:
        step = self._steps[bucket]
        step.is_told = True
        at = np.flatnonzero(step.scored)
        blocks = [self._blocks[i] for i in at.tolist()]
        series = SeriesColumn.of(blocks, np.full(at.size, SeriesKind.GAUGE, np.uint8))
        return GroupCounts(
            self._pipeline,
            self._step_ms,
            bucket,
            part,
            due_in_ms,
            is_late,
            series,
            step.scored[at],
            step.anomalous[at],
        )
