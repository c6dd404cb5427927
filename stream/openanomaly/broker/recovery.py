"""Table recovery that loses nothing: seeks before records flow, and always ends.

Faust 0.15 lets stream partitions flow, then seeks them, then clears every queue; what was delivered
in between is gone and counted as read. It also waits for ever for a last changelog record that
compaction or a transaction marker took away. (docs/decisions/0012-safe-recovery.md)
"""

import asyncio
from typing import Any

from faust.tables.manager import TableManager as FaustTableManager
from faust.tables.recovery import Recovery as FaustRecovery
from faust.types import TP
from mode import Service

_CHECK_S = 0.5


class Recovery(FaustRecovery):
    """Faust's recovery with another end."""

    def _add(self, table: Any, tp: TP, offsets: Any) -> None:
        # Faust goes on from the offset it had if the table knows of none. A table that has dropped a
        # partition which stays ours would then begin with nothing, in the middle of its changelog.
        self.tp_to_table[tp] = table
        offsets[tp] = table.persisted_offset(tp)

    def on_partitions_revoked(self, revoked: set[TP]) -> None:
        super().on_partitions_revoked(revoked)
        for table in self.tables.values():
            if hasattr(table.data, "revoked"):
                table.data.revoked()

    async def on_recovery_completed(self, generation_id: int = 0) -> None:
        """Open the tables, then set streams to where they begin, and only then let records flow."""
        app = self.app
        await app.on_rebalance_complete.send()
        self._set_recovery_ended()
        if app.consumer_generation_id != generation_id:
            return  # another rebalance has begun; its recovery ends here in its turn
        await asyncio.gather(
            *(
                table.on_recovery_completed(self.actives_for_table[table], self.standbys_for_table[table])
                for table in self.tables.values()
            )
        )
        await self._open_streams(generation_id)

    async def _resume_streams(self, generation_id: int = 0) -> None:
        """The same end for an app without tables."""
        await self.app.on_rebalance_complete.send()
        await self._open_streams(generation_id)

    async def _open_streams(self, generation_id: int) -> None:
        app, consumer = self.app, self.app.consumer
        assignment = consumer.assignment()
        if app.consumer_generation_id != generation_id:
            return
        if assignment:
            # Stream partitions are still paused: nothing of them can be delivered, nor cleared.
            await self._wait(consumer.perform_seek(), timeout=app.conf.broker_request_timeout)
        if not app.flow_control.is_active():
            app.flow_control.resume()  # clears every queue, so never while something may be in one
        consumer.resume_partitions({tp for tp in assignment if not self._is_changelog_tp(tp)})
        self.completed.set()
        consumer.resume_flow()
        await app._fetcher.maybe_start()
        self.tables.on_actives_ready()
        if not app.assignor.assigned_standbys():
            self.tables.on_standbys_ready()
        app.on_rebalance_end()
        self.log.info("streams open: %d partitions", len(assignment))

    @Service.task
    async def _end_where_the_log_ends(self) -> None:
        """Declare a partition recovered when the log has nothing more, whatever its last offset was."""
        last: Any = None
        while not self.should_stop:
            await self.sleep(_CHECK_S)
            if not self.in_recovery or not self.need_recovery():
                last = None
                continue
            if not self.tables.changelog_queue.empty():
                last = None
                continue
            # Twice the same, with nothing queued: what was fetched has been applied.
            seen = dict(self.active_offsets)
            if seen != last:
                last = seen
                continue
            await self._skip_missing()

    async def _skip_missing(self) -> None:
        for tp, left in self.active_remaining().items():
            if left <= 0:
                continue
            position = await self.app.consumer.position(tp)
            high = self.active_highwaters[tp]
            if position is not None and position > high:
                self.log.warning("%s ends before its last offset %d: recovered as far as it goes", tp, high)
                self.active_offsets[tp] = high
        if self.in_recovery and not self.need_recovery():
            self.flush_buffers()
            self._set_recovery_ended()
            self.signal_recovery_end.set()


class TableManager(FaustTableManager):
    """Makes Faust use our recovery (setting `TableManager`)."""

    _recovery: Recovery | None

    @property
    def recovery(self) -> Recovery:
        if self._recovery is None:
            self._recovery = Recovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery
