"""Finds an app that lives and does nothing, and measures what is unread."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from faust.types import TP

from openanomaly.broker.backlog import Backlog
from openanomaly.broker.faust_app import end_offsets
from openanomaly.errors import DeliveryError

if TYPE_CHECKING:
    from openanomaly.broker.faust_app import App

log = logging.getLogger(__name__)

Report = Callable[[str, str, int, float], None]
"""Called with role, topic, unread records, and for how many seconds the oldest of them has been there."""


class Watchdog:
    """Crashes an app that has records to read and reads none, so that its supervisor restarts it.

    Args:
        stall_s: longest time without reading a record while there are some.
        idle_s: longest time without any assigned partition.
        is_held_up: True while there is a known reason not to read (the target of a sink is down).
        report: gets the lag at each look.
    """

    def __init__(
        self,
        app: "App",
        report: Report,
        is_held_up: Callable[[], bool] = lambda: False,
        stall_s: float = 120.0,
        idle_s: float = 300.0,
        every_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._app = app
        self._report = report
        self._is_held_up = is_held_up
        self._stall_s, self._idle_s, self._every_s = stall_s, idle_s, every_s
        self._clock, self._wall_clock = clock, wall_clock
        self._moved = clock()
        self._assigned = clock()
        self._backlog = Backlog(app)
        self._positions: dict[TP, int] = {}

    async def watch(self) -> None:
        """Look until cancelled."""
        while not self._app.should_stop:
            await asyncio.sleep(self._every_s)
            try:
                async with asyncio.timeout(self._stall_s):
                    reason = await self.look()
            except TimeoutError:
                reason = f"the broker did not say where topics end within {self._stall_s:.0f} s"
            except Exception as exc:  # a broker that is away for a moment; the stall counts on
                log.debug("%s: no look at the lag: %r", self._app.role, exc)
                reason = self._stalled()
            if reason is not None:
                await self._app.crash(DeliveryError(f"{self._app.role}: {reason}"))
                return

    async def look(self) -> str | None:
        """Measure once; why the app must restart, or None."""
        now = self._clock()
        positions = {tp: at for ledger in self._app.ledgers for tp, at in ledger.positions().items()}
        if positions:
            self._assigned = now
        elif now - self._assigned > self._idle_s:
            return f"no partitions for {self._idle_s:.0f} s"
        ends = await end_offsets(self._app, positions)
        unread = {tp: max(0, ends[tp] - at) for tp, at in positions.items() if tp in ends}
        if positions != self._positions or not any(unread.values()) or self._is_held_up():
            self._moved = now
        self._positions = positions
        ages = await self._backlog.ages(now, self._wall_clock(), {tp: ends[tp] for tp in unread}, positions)
        for topic in {ledger.topic for ledger in self._app.ledgers}:
            mine = [tp for tp in unread if tp.topic == topic]
            oldest_s = max((ages[tp] for tp in mine), default=0.0)
            self._report(self._app.role, topic, sum(unread[tp] for tp in mine), oldest_s)
        return self._stalled()

    def _stalled(self) -> str | None:
        still = self._clock() - self._moved
        return f"records are unread and none was read for {still:.0f} s" if still > self._stall_s else None
