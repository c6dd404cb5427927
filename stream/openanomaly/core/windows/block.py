"""A block: the series of one window specification in one partition, and what is known of each.

Everything here is a function of the samples, forecasts and ticks it is given, in their order: that
is what lets a crashed worker repeat a run exactly. Nothing reads a clock.
"""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openanomaly.core import kernels
from openanomaly.core.frames import ForecastFrame
from openanomaly.core.pipelines.mute import muted
from openanomaly.core.pipelines.pipeline import ForecasterSpec, WindowSpec
from openanomaly.core.scoring.scorer import Judged, Scorer
from openanomaly.core.windows import buckets, coverage
from openanomaly.core.windows.bands import Bands
from openanomaly.core.windows.buckets import ROW_STATE
from openanomaly.core.windows.catalogue import FREE, Catalogue
from openanomaly.core.windows.compiled.samples import passing, take
from openanomaly.core.windows.counters import RATE
from openanomaly.core.windows.groups import Grouping
from openanomaly.core.windows.plan import BlockPlan, WatchedPipeline
from openanomaly.core.windows.ring import Ring
from openanomaly.core.windows.rows import NONE, PART, STATE_PAGE, Columns, Rows, as_slice


@dataclass(frozen=True, slots=True)
class Scored:
    """What one pipeline says of closed steps."""

    pipeline: WatchedPipeline
    rows: Rows
    bucket: NDArray[np.int64]
    value: NDArray[np.float64]
    median: NDArray[np.float64]
    judged: Judged


@dataclass(frozen=True, slots=True)
class Closing:
    """One closed step of each of `rows`, which ascend and differ.

    `stored` is the value relative to the row's base, as the ring holds it. `due` are the rows of
    which each forecaster wants a context that ends with this step.
    """

    rows: Rows
    bucket: NDArray[np.int64]
    stored: NDArray[np.float32]
    scored: list[Scored]
    due: list[tuple[ForecasterSpec, Rows, NDArray[np.int64]]] = field(default_factory=list)


class Scoring:
    """One pipeline's scorer on a block: its state, and which rows it wants."""

    def __init__(self, pipeline: WatchedPipeline, outcomes: Counter[str]) -> None:
        """`outcomes` are those of the block."""
        self.pipeline = pipeline
        self.scorer = Scorer(pipeline.pipeline.score)
        of = pipeline.pipeline
        self.groups = Grouping(of, STATE_PAGE, outcomes) if of.group_by else None
        self._outcomes = outcomes
        self.state: dict[str, NDArray[Any]] = self.scorer.allocate(STATE_PAGE)
        self.members = np.zeros(STATE_PAGE, bool)
        self.closed = 0
        """Steps that closed since the last census."""

    def judge_for(self, pipeline: WatchedPipeline, closed: int) -> None:
        """Go on with other options of the pipeline. `closed` is the newest step that some row has closed."""
        of = pipeline.pipeline
        if of.group_by != self.pipeline.pipeline.group_by:
            first = closed + 1
            self.groups = Grouping(of, len(self.members), self._outcomes, first) if of.group_by else None
        elif self.groups is not None:
            self.groups.wait_for(of.lateness_s)
        self.pipeline = pipeline
        self.scorer = Scorer(pipeline.pipeline.score)

    def grow(self, rows: int) -> None:
        capacity = len(self.members)
        if rows <= capacity:
            return
        while capacity < rows:
            capacity *= 2
        fresh = self.scorer.allocate(capacity)
        for name, old in self.state.items():
            fresh[name][: len(old)] = old
        self.state = fresh
        self.members = np.concatenate([self.members, np.zeros(capacity - len(self.members), bool)])
        if self.groups is not None:
            self.groups.grow(capacity)


class Block:
    """Windows, row state, forecasts and scores of the series of one window specification."""

    def __init__(self, plan: BlockPlan) -> None:
        self.plan = plan
        self.spec: WindowSpec = plan.spec
        self.uid = plan.spec.uid
        self.catalogue = Catalogue(self.uid, str(plan.spec))
        self.ring = Ring(plan.spec.context)
        self.state = Columns(ROW_STATE)
        self.is_rate = np.zeros(STATE_PAGE, bool)
        self.bands = {f.uid: Bands(f.horizon) for f in plan.forecasters}
        self.counts: Counter[str] = Counter()
        self.scorings = [Scoring(p, self.counts) for p in plan.pipelines]
        self.newborn: deque[Rows] | None = None
        """Rows that have begun without a past; None where nobody will give them one."""
        self.census_ms: int | None = None
        """When the last census was made."""
        # Per state page: changed since its last record, and whether the cold columns did too.
        self.touched = np.zeros(1, bool)
        self.touched_cold = np.zeros(1, bool)

    @property
    def is_of_groups(self) -> bool:
        """Whether the series are groups, and their values shares."""
        return self.spec.is_of_groups

    @property
    def rows(self) -> int:
        return self.catalogue.rows

    def grow(self) -> None:
        """Make room for the rows of the catalogue."""
        rows = self.rows
        self.ring.grow(rows)
        self.state.grow(rows)
        for bands in self.bands.values():
            bands.grow(rows)
        for scoring in self.scorings:
            scoring.grow(rows)
        if rows > len(self.is_rate):
            self.is_rate = np.concatenate(
                [self.is_rate, np.zeros(self.state.capacity - len(self.is_rate), bool)]
            )
        pages = -(-self.state.capacity // STATE_PAGE)
        if pages > len(self.touched):
            more = np.zeros(pages - len(self.touched), bool)
            self.touched = np.concatenate([self.touched, more])
            self.touched_cold = np.concatenate([self.touched_cold, more])

    def fresh(self, rows: Rows, members: Sequence[NDArray[np.bool_]]) -> None:
        """Rows have a new owner: nothing of the old one may show. `members` per pipeline."""
        self.state.reset(rows)
        self.is_rate[rows] = (self.catalogue.kind[rows] & RATE) != 0
        for bands in self.bands.values():
            bands.reset(rows)
        for scoring, member in zip(self.scorings, members, strict=True):
            scoring.scorer.reset(scoring.state, rows)
            scoring.members[rows] = member
            if scoring.groups is not None:
                scoring.groups.reset(rows)
        self.touched[rows // STATE_PAGE] = True
        self.touched_cold[rows // STATE_PAGE] = True

    @property
    def newborn_rows(self) -> int:
        return sum(map(len, self.newborn or ()))

    def take_newborn(self, most: int) -> Rows:
        """Some of the rows that have begun without a past, ascending; each is taken once."""
        taken: list[Rows] = []
        while self.newborn and most > 0:
            rows = self.newborn.popleft()
            if len(rows) > most:
                self.newborn.appendleft(rows[most:])
            taken.append(rows[:most])
            most -= len(taken[-1])
        return np.unique(np.concatenate(taken)) if taken else np.empty(0, np.int64)

    def put(
        self,
        row: Rows,
        timestamp_ms: NDArray[np.int64],
        value: NDArray[np.float64],
        received_ms: int,
    ) -> list[Closing]:
        """Take samples in their order of arrival; what they close, in an order that can be scored."""
        steps = np.diff(row)
        if not (steps > 0).all():
            order = np.argsort(row, kind="stable")
            row, timestamp_ms, value = row[order], timestamp_ms[order], value[order]
            steps = np.diff(row)
        if kernels.WINDOWS.ready() and (steps > 0).all():
            closed = take(
                self.state,
                row,
                timestamp_ms,
                value,
                self.is_rate,
                self.touched,
                self.spec.step_ms,
                self.spec.aggregate,
                received_ms,
                self.plan.lateness_ms,
                self.counts,
            )
            return [self._closed(*closed)] if closed.rows.size else []
        cells = buckets.gather(
            self.state,
            row,
            timestamp_ms,
            value,
            self.is_rate,
            self.spec.step_ms,
            self.spec.aggregate,
            self.counts,
        )
        if not cells.row.size:
            return []
        self.touched[cells.row // STATE_PAGE] = True
        if not cells.turn.any():
            return self._turn(cells, slice(None), received_ms)
        order = np.argsort(cells.turn, kind="stable")
        edges = np.flatnonzero(np.diff(cells.turn[order])) + 1
        out: list[Closing] = []
        for turn in np.split(order, edges):
            out += self._turn(cells, turn, received_ms)
        return out

    def _turn(self, cells: buckets.Cells, at: slice | Rows, received_ms: int) -> list[Closing]:
        """Apply one cell of each row: close what is older than it, then gather."""
        s = self.state
        rows, bucket = cells.row[at], cells.bucket[at]
        gathered, count, last_ms = cells.gathered[at], cells.count[at], cells.last_ms[at]
        open_ = s["open"][rows]
        is_new = bucket > open_
        closing = is_new & (open_ != NONE)
        out = [self._close(rows if closing.all() else rows[closing])] if closing.any() else []
        if is_new.all():
            s["gathered"][rows], s["count"][rows] = gathered, count
        else:
            had = s["count"][rows]
            both = merged = ~is_new & (had > 0) & (count > 0)
            total = np.where(is_new | (count > 0), gathered, s["gathered"][rows])
            if both.any():
                old = s["gathered"][rows[merged]]
                total[merged] = buckets.merge(old, gathered[merged], self.spec.aggregate)
            s["gathered"][rows] = total
            s["count"][rows] = np.where(is_new, count, had + count)
        s["open"][rows] = np.where(s["count"][rows] > 0, bucket, NONE)
        end = (bucket + 1) * self.spec.step_ms
        # The row's own delay counts: a source that is late is not closed early. For a punctual one
        # this is the end of the bucket and the lateness.
        wait = np.maximum(received_ms + end - last_ms, end)
        s["deadline_ms"][rows] = wait + self.plan.lateness_ms
        return [c for c in out if c.rows.size]

    def tick(self, now_ms: int, behind: NDArray[np.bool_] | None = None) -> list[Closing]:
        """Close the open buckets whose time is up; of the parts `behind`, if given."""
        n = self.rows
        s = self.state
        rows = np.flatnonzero((s["deadline_ms"][:n] <= now_ms) & (s["open"][:n] != NONE))
        if behind is not None:
            rows = rows[behind[rows // PART]]
        if not rows.size:
            return []
        self.touched[rows // STATE_PAGE] = True
        closing = self._close(rows)
        return [closing] if closing.rows.size else []

    def idle(self, now_ms: int, ttl_ms: int) -> Rows:
        """Rows without a sample for `ttl_ms`, and those that no pipeline wants any more.

        Those whose state a restart did not find start to wait now.
        """
        n = self.rows
        owned = self.catalogue.born[:n] != FREE
        deadline = self.state["deadline_ms"][:n]
        deadline[owned & (deadline == NONE)] = now_ms
        wanted = np.logical_or.reduce([s.members[:n] for s in self.scorings])
        return np.flatnonzero(owned & ((deadline <= now_ms - ttl_ms) | ~wanted))

    def evict(self, rows: Rows) -> None:
        self.catalogue.evict(rows)
        self.fresh(rows, [np.zeros(rows.size, bool) for _ in self.scorings])

    def _close(self, rows: Rows) -> Closing:
        """Close the open bucket of rows, which ascend, differ and have one."""
        s = self.state
        bucket, before = s["open"][rows], s["closed"][rows]
        value = buckets.finish(s["gathered"][rows], s["count"][rows], self.spec.aggregate)
        s["open"][rows] = NONE
        s["count"][rows] = 0
        s["closed"][rows] = bucket
        if not (finite := np.isfinite(value)).all():
            # Samples that are finite can overflow in their sum: the step is missing.
            self.counts["overflow_steps"] += int((~finite).sum())
            rows, bucket, before, value = rows[finite], bucket[finite], before[finite], value[finite]
        return self._closed(rows, bucket, before, value)

    def _closed(
        self, rows: Rows, bucket: NDArray[np.int64], before: NDArray[np.int64], value: NDArray[np.float64]
    ) -> Closing:
        """What follows from closed steps with finite values."""
        base = self.catalogue.base[rows]
        stored = stored_as(value, base)
        self.ring.put(rows, bucket, stored)
        scored = self._score(rows, bucket, value, base) if rows.size else []
        return Closing(rows, bucket, stored, scored, self.due(rows, bucket, before))

    def _score(
        self, rows: Rows, bucket: NDArray[np.int64], value: NDArray[np.float64], base: NDArray[np.float64]
    ) -> list[Scored]:
        out = []
        quantiles = {uid: bands.at(rows, bucket, base) for uid, bands in self.bands.items()}
        for band in quantiles.values():
            coverage.count(self.counts, value, band)
        for scoring in self.scorings:
            watched = scoring.pipeline
            band = quantiles[watched.forecaster.uid]
            r, b, y = rows, bucket, value
            if not (mine := scoring.members[rows]).all():
                if not mine.any():
                    continue
                r, b, y, band = rows[mine], bucket[mine], value[mine], band[mine]
            mute = muted(watched.pipeline.score.mute, (b + 1) * self.spec.step_ms)
            judged = scoring.scorer.update(scoring.state, as_slice(r), b, y, band, mute)
            if judged.filed.any():
                self.touched_cold[r[judged.filed] // STATE_PAGE] = True
            scoring.closed += r.size
            out.append(Scored(watched, r, b, y, band[:, 2], judged))
        return out

    def due(
        self, rows: Rows, bucket: NDArray[np.int64], before: NDArray[np.int64]
    ) -> list[tuple[ForecasterSpec, Rows, NDArray[np.int64]]]:
        """Rows that passed the step at which each forecaster is due for them. They may come repeatedly."""
        out = []
        for forecaster in self.plan.forecasters:
            if kernels.WINDOWS.ready():
                at = passing(self.catalogue.ids, rows, bucket, before, forecaster.every)
            else:
                shift = (self.catalogue.ids[rows, 1] % np.uint64(forecaster.every)).astype(np.int64)
                last = np.where(before == NONE, bucket - 1, before)
                due = (bucket + shift) // forecaster.every != (last + shift) // forecaster.every
                at = np.flatnonzero(due)
            at = at[self.wanted(forecaster, rows[at])]
            if at.size:
                out.append((forecaster, rows[at], bucket[at]))
        return out

    def wanted(self, forecaster: ForecasterSpec, rows: Rows) -> NDArray[np.bool_]:
        """(n,) which of `rows` are of a pipeline that asks this forecaster."""
        members = [s.members[rows] for s in self.scorings if s.pipeline.forecaster == forecaster]
        wanted: NDArray[np.bool_] = np.logical_or.reduce(members)
        return wanted

    def due_now(self, rows: Rows, forecasters: Sequence[ForecasterSpec] | None = None) -> Closing:
        """Nothing closes, and the contexts of `rows` are due for every forecaster, or for those given."""
        rows = rows[self.state["closed"][rows] > NONE]
        closed = self.state["closed"][rows]
        due = []
        for forecaster in self.plan.forecasters if forecasters is None else forecasters:
            at = np.flatnonzero(self.wanted(forecaster, rows))
            if at.size:
                due.append((forecaster, rows[at], closed[at]))
        none: Rows = np.empty(0, np.int64)
        return Closing(none, none, np.empty(0, np.float32), [], due)

    def forecast(self, frame: ForecastFrame, offset: int) -> int:
        """Take over forecasts of rows that still have the owner they were made for; how many."""
        bands = self.bands.get(frame.forecaster)
        if bands is None or not frame.row.size:
            return 0
        rows = frame.row.astype(np.int64)
        known = rows < self.rows
        at = np.where(known, rows, 0)
        if not self.rows:
            return 0
        same = known & (self.catalogue.generation[at] == frame.generation) & (self.catalogue.born[at] != FREE)
        return bands.apply(frame, same, offset)

    @property
    def row_state_bytes(self) -> int:
        """Bytes of state per row without ring and bands."""
        scorers = sum(a.nbytes for s in self.scorings for a in s.state.values()) // self.state.capacity
        groups = sum(s.groups.row_bytes for s in self.scorings if s.groups is not None)
        return self.state.row_bytes + scorers + groups


def stored_as(value: NDArray[np.float64], base: NDArray[np.float64]) -> NDArray[np.float32]:
    """Closed steps as the ring holds them."""
    with np.errstate(over="ignore"):
        stored = (value - base).astype(np.float32)
    # Beyond float32 the window saturates; scores see the value itself.
    np.clip(stored, -3e38, 3e38, out=stored)
    return stored
