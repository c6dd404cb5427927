"""One partition of the samples topic: all its blocks, fed in one order.

The state of a partition is a function of three inputs: sample frames, forecast frames and ticks.
Every changelog record carries a mark that says how far each had been consumed. After a crash the
latest state pages are loaded, and the inputs since are taken again in the order that the marks
tell: the same steps close with the same values, are scored against the same forecasts, and give
the same records once more.
"""

from collections import Counter, deque
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.fields import parse
from openanomaly.core.frames import ForecastFrame, SampleFrame, ScoreFrame
from openanomaly.core.group_frames import GroupCounts
from openanomaly.core.series import decode_labels
from openanomaly.core.windows import output, records, state_pages
from openanomaly.core.windows.admission import Budget, Refused, admit, in_none, members_of
from openanomaly.core.windows.ahead import Ahead
from openanomaly.core.windows.block import Block, Closing
from openanomaly.core.windows.catalogue import UNWANTED, Catalogue, missing
from openanomaly.core.windows.census import census_frames
from openanomaly.core.windows.forecast_log import ForecastLog
from openanomaly.core.windows.output import Checkpoint, Output
from openanomaly.core.windows.partition_groups import PartitionGroups
from openanomaly.core.windows.plan import BlockPlan
from openanomaly.core.windows.records import Position, Record
from openanomaly.core.windows.ring import Ring
from openanomaly.core.windows.rows import LATEST_MS, PART
from openanomaly.core.windows.strangers import Strangers
from openanomaly.errors import BrokerError
from openanomaly.pb.openanomaly.v1 import changelog_pb2 as pb

_MARKS = 20_000


class Partition:
    """Windows and scores of the series of one partition."""

    def __init__(
        self, number: int, plans: Iterable[BlockPlan], budget: Budget, *, has_history: bool = False
    ) -> None:
        """`has_history`: somebody will give new series their past."""
        self.number = number
        self._has_history = has_history
        self.blocks = {p.spec.uid: self.make_block(p) for p in plans}
        self.emit: output.Emit = "all"
        self.position = Position(0, 0, 0)
        self.marks: deque[Position] = deque(maxlen=_MARKS)
        self.is_started = False
        self.distinct_series = 0
        """Series that have a row: those of several blocks count once, in `series` once per block."""
        self.written: set[int] = set()
        """Blocks, wanted or not, of which the changelogs have something."""
        self.budget = budget
        self._sequence = 0
        self._pages: dict[bytes, bytes] = {}
        self._ahead = Ahead()
        self._forecasts = ForecastLog()
        self.opening = Output()
        """What is to be written right behind the start."""
        self._moving_from: str | None = None
        self._left: Counter[str] = Counter()
        self._groups_left: Counter[str] = Counter()
        self._refused = Refused()
        self._strangers = Strangers()
        self._groups = PartitionGroups()

    def make_block(self, plan: BlockPlan) -> Block:
        """A block without series."""
        block = Block(plan)
        block.newborn = deque() if self._has_history and not block.is_of_groups else None
        return block

    @property
    def counts(self) -> Counter[str]:
        """Outcomes since the start, over all blocks."""
        own = [b.counts for b in self.blocks.values() if not b.is_of_groups]
        return sum(own, Counter(self._left))

    @property
    def share_outcomes(self) -> Counter[str]:
        """The same of the shares of groups."""
        shares = [b.counts for b in self.blocks.values() if b.is_of_groups]
        return sum(shares, Counter(self._groups_left))

    @property
    def groups(self) -> int:
        """Groups that have a share, once per pipeline."""
        return sum(b.catalogue.live for b in self.blocks.values() if b.is_of_groups)

    @property
    def series(self) -> int:
        return sum(b.catalogue.live for b in self.blocks.values())

    @property
    def with_forecast(self) -> int:
        """Series that have a forecast for their next step, over all forecasters."""
        return sum(
            bands.count(b.rows, b.state["closed"][: b.rows])
            for b in self.blocks.values()
            for bands in b.bands.values()
        )

    @property
    def row_state_bytes(self) -> int:
        """Bytes of state of a series over all blocks, without rings and forecasts."""
        return sum(b.row_state_bytes for b in self.blocks.values())

    # -- recovery ------------------------------------------------------------------------------

    def restore(self, key: bytes, value: bytes) -> None:
        """Take one record of either changelog, in the order of its topic.

        Raises:
            MalformedFrameError, UnknownVersionError: the record is not one this release can read.
        """
        kind, uid, _, _ = records.read_key(key)
        records.check_version(kind, value)
        if kind == records.MOVE:
            self._moving_from = records.restore_move(value)
            return
        self.written.add(uid)
        block = self.blocks.get(uid)
        if block is None:
            self._strangers.keep(uid, key, value)
        elif kind in (records.COLUMN, records.PATCH):
            take = records.restore_column if kind == records.COLUMN else records.restore_patch
            mark = take(block, value)
            if not self.marks or self.marks[-1] != mark:
                self.marks.append(mark)
        elif kind == records.CATALOGUE:
            block.catalogue.restore(value)
        elif kind == records.RING_ANEW:
            block.ring = Ring(block.spec.context)
        elif kind == records.STATE_ANEW:
            block.catalogue = Catalogue(uid, str(block.spec))
            self._pages = {k: page for k, page in self._pages.items() if records.read_key(k)[1] != uid}
        else:
            self._pages.pop(key, None)  # what is written last holds, and so is restored last
            self._pages[key] = value

    def recall(self, uid: int) -> None:
        """Windows that nobody asked for are wanted, before the start: take their records.

        Raises:
            RestartNeededError: they were too many to be kept.
        """
        for key, value in self._strangers.recall(uid, self.number):
            self.restore(key, value)

    def start(self) -> None:
        """All records are there: build what they do not hold, and be ready for inputs.

        Raises:
            BrokerError: they are a part of what was moved here.
        """
        if self._moving_from is not None:
            raise BrokerError(
                f"partition {self.number} has only a part of what was moved here from {self._moving_from}: "
                "`openanomaly migrate` has not finished, or was interrupted. Wait for its end, or delete "
                "what it has written and migrate again"
            )
        before: list[Block] = []
        for block in self.blocks.values():
            block.catalogue.restored()
            if not block.rows and block.ring.is_written:
                # A change of pipelines was interrupted: the ring is of another life of the block.
                block.ring = Ring(block.spec.context)
                self.opening.ring.append(records.anew_record(records.RING_ANEW, block))
            block.grow()
            live = block.catalogue.live_rows()
            if live.size:
                self.distinct_series += in_none(before, block.catalogue.ids[live])
                labels = [decode_labels(block.catalogue.labels[row]) for row in live.tolist()]
                block.fresh(live, members_of(block, labels))
            before.append(block)
            # A row whose steps were written before a checkpoint is closed through its first bucket at least.
            block.touched[:] = block.touched_cold[:] = False
        for kind in (records.COLD, records.HOT):
            for key, value in self._pages.items():
                k, uid, _, _ = records.read_key(key)
                if k == kind:
                    self._restore_page(self.blocks[uid], value)
        self._ahead.restored()
        self._pages.clear()
        self._strangers.clear()
        self.budget.used += self.series
        self.written.update(self.blocks)
        self.is_started = True

    def _restore_page(self, block: Block, value: bytes) -> None:
        message = parse(pb.StatePage, value, records.VERSION)
        parts = state_pages.parts_of(message)
        state_pages.restore_state(block, message, message.cold, [True] * len(parts))
        mark = Position(message.mark.samples, message.mark.forecasts, message.mark.tick_ms)
        # Both kinds of record carry the hot columns: the newer of them holds.
        newer = self._ahead.take(block.uid, parts, mark, message.sequence)
        state_pages.restore_state(block, message, message.hot, newer)
        self._sequence = max(self._sequence, message.sequence)
        self._groups.parts.restore(message)

    def seek(self, samples: int, forecasts: int, samples_end: int, forecasts_end: int) -> None:
        """Inputs begin at these offsets, the committed ones; their topics end at the others.

        A mark beyond the end of a topic is of a log that is no longer there: it cannot be waited for.
        """
        self.position = Position(samples, forecasts, self.position.tick_ms)
        self._groups.parts.begin(samples)
        marks = [m for m in self.marks if samples <= m.samples <= samples_end]
        self.marks = deque((m._replace(forecasts=min(m.forecasts, forecasts_end)) for m in marks), _MARKS)

    def next_mark(self) -> Position | None:
        """The next point of a run to repeat, or None when inputs may come as they come.

        Before the mark is passed: forecasts up to its offset, then samples up to its offset, then
        its tick (`replay_tick`).
        """
        while self.marks and self.marks[0].samples < self.position.samples:
            self.marks.popleft()
        return self.marks[0] if self.marks else None

    def pass_mark(self) -> None:
        self.marks.popleft()

    def _is_behind(self, block: Block, position: Position) -> NDArray[np.bool_] | None:
        """By `PART` rows, whether an input at `position` is new to them; None where it is to all."""
        return self._ahead.behind(block.uid, block.state.capacity, position)

    # -- inputs --------------------------------------------------------------------------------

    def put(self, frame: SampleFrame, offset: int, now_ms: int) -> Output:
        """Take the sample frame at `offset`. What it closes, and what is new.

        Raises:
            MalformedFrameError: labels of a new series cannot be read.
        """
        # All blocks read the labels before any takes a sample: a bad frame changes nothing.
        blocks = [block for block in self.blocks.values() if block.is_of_groups == frame.of_groups]
        found = [(block, self._rows(block, frame)) for block in blocks]
        if (nowhere := self._in_no_block(frame, [rows for _, rows in found])).size:
            self._refused.remember(frame, nowhere)
        self.position = self.position._replace(samples=offset + 1)
        position = Position(offset + 1, self.position.forecasts, 0)
        out = Output(groups=self._groups.before_input(self.blocks.values(), offset + 1, 0, now_ms))
        for block, series_row in found:
            rows = series_row[frame.row]
            timestamp_ms, value = frame.timestamp_ms, frame.value
            keep = (rows >= 0) & (rows != UNWANTED)
            # A page that was saved after this frame was taken knows it already.
            behind = self._is_behind(block, Position(offset + 1, 0, 0))
            if behind is not None:
                known = keep & ~behind[np.where(keep, rows, 0) // PART]
                block.counts["replayed"] += int(known.sum())
                keep &= ~known
            if not keep.all():
                rows, timestamp_ms, value = rows[keep], timestamp_ms[keep], value[keep]
            block.counts["in"] += frame.row.size
            closings = block.put(rows.astype(np.int64), timestamp_ms, value, frame.received_ms)
            if block.is_of_groups:  # one share makes a step, and it was waited for
                closings += block.tick(LATEST_MS)
            out.catalogue += records.catalogue_records(block)
            self._extend(out, block, closings, position, now_ms)
        return out

    def forecast(self, frame: ForecastFrame, offset: int, written_ms: int) -> int:
        """Take the forecast frame at `offset`, written at `written_ms`. How many rows it serves."""
        self.position = self.position._replace(forecasts=offset + 1)
        self._forecasts.take(offset, written_ms)
        block = self.blocks.get(frame.block)
        if block is None:
            return 0
        served = block.forecast(frame, offset)
        block.counts["forecasts"] += served
        return served

    def skip(self, topic: str, offset: int) -> None:
        """Pass over the record at `offset`, which cannot be read."""
        if topic == "samples":
            self.position = self.position._replace(samples=offset + 1)
        else:
            self.position = self.position._replace(forecasts=offset + 1)

    def tick(self, now_ms: int) -> Output:
        """Close what is due by the wall clock. Only when every record before this moment was taken.

        A clock that was set back closes nothing until it is where it had been: at the old time every
        open step would be overdue, and a second tick at one time could not be told from the first.
        """
        if now_ms <= self.position.tick_ms:
            return Output()
        self.position = self.position._replace(tick_ms=now_ms)
        out = Output(
            groups=self._groups.before_input(self.blocks.values(), self.position.samples, now_ms, now_ms)
        )
        for block in self.blocks.values():
            closings = block.tick(now_ms, self._is_behind(block, self.position))
            self._extend(out, block, closings, self.position, now_ms)
        out.groups.add(self._groups.at_tick(self.blocks.values(), now_ms))
        return out

    def groups_so_far(self, now_ms: int) -> Output:
        """What is to be written of groups before a checkpoint."""
        return Output(groups=self._groups.before_checkpoint(self.blocks.values(), now_ms))

    def rest_of_groups(self) -> list[GroupCounts]:
        """What is counted of groups and not told, where nothing comes later."""
        return self._groups.rest(self.blocks.values())

    def census(self, now_ms: int) -> list[ScoreFrame]:
        """How many series there are and how they stand, where it is time to tell."""
        blocks = [block for block in self.blocks.values() if not block.is_of_groups]
        return [frame for block in blocks for frame in census_frames(block, self.emit, now_ms)]

    def evict(self, now_ms: int, ttl_ms: int) -> Output:
        """Take rows from series that have been idle for `ttl_ms`, or that no pipeline wants any more."""
        out = Output()
        for block in self.blocks.values():
            # A share comes once a step, however long that is.
            rows = block.idle(now_ms, max(ttl_ms, 2 * block.spec.step_ms) if block.is_of_groups else ttl_ms)
            if rows.size:
                block.counts["evicted"] += rows.size
                self.distinct_series -= in_none(self._others(block), block.catalogue.ids[rows])
                block.evict(rows)
                self.budget.give(rows.size)
                out.catalogue += records.catalogue_records(block)
        return out

    def leave(self, block: Block) -> None:
        """No pipeline asks for these windows any more."""
        (self._groups_left if block.is_of_groups else self._left).update(block.counts)
        self._ahead.forget(block.uid)
        if self.is_started:
            self.budget.give(block.catalogue.live)

    def _extend(
        self, out: Output, block: Block, closings: list[Closing], position: Position, now_ms: int
    ) -> None:
        if not closings:
            return
        block.counts["closed_steps"] += sum(c.rows.size for c in closings)
        out.ring += records.ring_records(block, closings, position)
        out.due += output.due_frames(block, closings, self.number, now_ms)
        out.scores += output.score_frames(block, closings, self.emit, now_ms)
        out.groups.add(self._groups.count(block, closings, now_ms))

    def _rows(self, block: Block, frame: SampleFrame) -> NDArray[np.int32]:
        """(S,) rows of the frame's series; new ones are admitted."""
        rows = block.catalogue.find(frame.series.ids)
        if (new := missing(rows)).size:
            self.distinct_series += admit(block, self._others(block), frame, new, self.budget, self._refused)
            rows = block.catalogue.find(frame.series.ids)
        if (odd := (rows < 0) | (rows == UNWANTED)).any():
            lost = np.bincount(frame.row, minlength=len(rows))
            full = self.budget.used >= self.budget.limit
            without = (rows < 0) & ~frame.series.has_labels & (not full)
            block.counts["unlabelled"] += int(lost[without].sum())
            block.counts["max_series"] += int(lost[(rows < 0) & ~without].sum())
            block.counts["unselected"] += int(lost[odd & (rows >= 0)].sum())
        return rows

    def _in_no_block(self, frame: SampleFrame, rows: list[NDArray[np.int32]]) -> NDArray[np.int64]:
        """The series that came with their labels, and that every block was looked at for in vain."""
        if not (has := frame.series.has_labels).any():
            return np.empty(0, np.int64)
        for series_row in rows:
            has = has & (series_row == UNWANTED)
        return np.flatnonzero(has)

    def _others(self, block: Block) -> list[Block]:
        return [other for other in self.blocks.values() if other is not block]

    # -- checkpoints ---------------------------------------------------------------------------

    def checkpoint(self, now_ms: int) -> Checkpoint:
        """The row state that changed since the last checkpoint, as of this moment."""
        self._sequence += 1
        parts = self._groups.parts
        ends = parts.at_checkpoint(self.position.samples, self.position.tick_ms)
        out: list[Record] = []
        for block in self.blocks.values():
            ahead = self._ahead.of(block.uid)
            out += state_pages.state_records(block, self.position, self._sequence, ahead, ends)
        if out and parts.end is None:
            parts.now = ends[1]  # no page, no step: the part goes on
        forecasts = self._forecasts.oldest(
            self.blocks.values(), self.position.forecasts, now_ms, is_repeat=self.next_mark() is not None
        )
        for block in self.blocks.values():
            for bands in block.bands.values():
                bands.expire(forecasts)
        return Checkpoint(out, self.position.samples, forecasts)
