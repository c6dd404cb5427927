"""What our consumers change in Faust's, on every transport: who says which records are finished.

Faust commits what its streams acknowledge, and in its version 0.15 that loses records: events an
agent failed on are acknowledged, a hole of one record is committed over, records skipped in a
rebalance are acknowledged even on `noack` streams. Here acknowledgements mean nothing. Only a
ledger's `release` moves a partition's committed offset (docs/decisions/0011-offsets-by-release.md).
"""

import asyncio
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

from faust.transport.consumer import Consumer
from faust.types import TP

_ALL_BUSY_S = 0.02
_COMMIT_AGAIN_S = 0.1


class ReleasedOffsets(Consumer):
    """Mixin before a transport's consumer class. Commits released offsets and nothing else."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.begin: dict[TP, int] = {}
        """Where delivery of each assigned partition began after the last rebalance."""
        self.expired: dict[TP, int] = {}
        """Records per partition that retention deleted before we read them."""
        self._expired_to: dict[TP, int] = {}
        """Up to where they are counted: until the next commit a rebalance finds the same ones missing."""
        self._released: dict[TP, int] = {}
        super().__init__(*args, **kwargs)

    @abstractmethod
    async def committed_offsets(self, tps: Iterable[TP]) -> dict[TP, int | None]:
        """Offsets the group has committed, as the broker knows them now."""

    async def begin_offsets(self, tps: Iterable[TP]) -> dict[TP, int]:
        """Where delivery begins if it begins now: the committed offset, or the earliest there is."""
        tps = set(tps)
        committed = await self.committed_offsets(tps)
        earliest = await self.earliest_offsets(*tps) if tps else {}
        return {tp: max(committed[tp] or 0, earliest.get(tp) or 0) for tp in tps}

    def release(self, tp: TP, offset: int) -> None:
        """Every record of `tp` below `offset` is finished for good; it is committed soon."""
        if offset > self._released.get(tp, 0) and tp in self.assignment():
            self._released[tp] = offset

    async def committed_through(self, offsets: Mapping[TP, int]) -> None:
        """Return once these offsets, which were released, are committed, or the partition has left us."""
        while any(self._is_uncommitted(tp, offset) for tp, offset in offsets.items()):
            # One that is on its way may have begun before the release: then it takes another one.
            if not await self.commit() and any(self._is_uncommitted(*each) for each in offsets.items()):
                await asyncio.sleep(_COMMIT_AGAIN_S)

    def _is_uncommitted(self, tp: TP, offset: int) -> bool:
        is_ours = tp in self.assignment() and self._released.get(tp, 0) >= offset
        return is_ours and (self._committed_offset.get(tp) or 0) < offset

    # -- what Faust calls ------------------------------------------------------------------------

    async def perform_seek(self) -> None:
        """Set every stream partition to where its delivery begins, and note what retention took."""
        tps = {tp for tp in self.assignment() if not self._is_changelog_tp(tp)}
        committed = await self.committed_offsets(tps)
        begin = await self.begin_offsets(tps)
        for tp, offset in begin.items():
            before = committed[tp]
            if before is not None and (lost := offset - max(before, self._expired_to.get(tp, 0))) > 0:
                self.expired[tp] = self.expired.get(tp, 0) + lost
                self._expired_to[tp] = offset
                self.log.error("%d records of %s were deleted by retention before they were read", lost, tp)
            self._released.setdefault(tp, offset)
            self._committed_offset[tp] = before
        self.begin = begin
        # The seek itself, in the transport's way; `_read_offset` must say "nothing before this",
        # else Faust takes the first record for a gap or drops it as read.
        await self.seek_wait(begin)
        for tp in begin:
            self._read_offset[tp] = None

    def ack(self, message: Any) -> bool:
        """Not ours to judge: see the module."""
        message.acked = True
        self._unacked_messages.discard(message)
        return False

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Faust would count a gap as acknowledged. The ledger looks for gaps instead."""

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Any:
        return [tp for tp in self._released if topics is None or tp in topics or tp.topic in topics]

    def _new_offset(self, tp: TP) -> int | None:
        released, committed = self._released.get(tp), self._committed_offset[tp]
        return released if released is not None and released > (committed or 0) else None

    async def _commit_offsets(self, offsets: Mapping[TP, int], start_new_transaction: bool = True) -> bool:
        # Faust notes offsets as committed whether they were or not, and would not try again before
        # something more is released.
        before = {tp: self._committed_offset[tp] for tp in offsets}
        did_commit = bool(await super()._commit_offsets(offsets, start_new_transaction))
        if not did_commit:
            self._committed_offset.update(before)
        return did_commit

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        await super().on_partitions_revoked(revoked)
        for tp in revoked:
            self._released.pop(tp, None)

    async def _wait_next_records(self, timeout: float) -> tuple[Mapping[TP, Any] | None, set[TP] | None]:
        # As Faust's, with two differences. Where every partition's buffer is full it sleeps a whole
        # second, which turns bursts into steps of latency. And it hands out its own set of partitions,
        # which changes while a fetch waits. Here a transport's `_getmany` decides alone what it returns,
        # and leaves unread what is paused meanwhile: nobody would take it.
        if not self.flow_active:
            await self.wait(self.can_resume_flow)
        active = self._get_active_partitions()
        if not active:
            await self.sleep(_ALL_BUSY_S)
            return {}, active
        records = await self._getmany(active_partitions=set(active), timeout=timeout)
        return records, set(records)
