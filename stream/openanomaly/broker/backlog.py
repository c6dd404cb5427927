"""How long the oldest unread record of each partition has been there."""

import logging
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING

from faust.types import TP

from openanomaly.broker.written import written_s
from openanomaly.errors import OpenAnomalyError

if TYPE_CHECKING:
    from openanomaly.broker.faust_app import App

log = logging.getLogger(__name__)

_ASK_AFTER_S = 10.0
"""Without a record of a partition for so long, the broker is asked when the next one was written."""
_ENDS_KEPT = 600
"""Ends remembered per partition: exact for ten minutes, then coarser by and by."""


class Backlog:
    """Ages of what is unread. Those of records that came while somebody looked were seen.

    What was there before is as old as its timestamps say, which are of its writers' clocks: that of the
    last record that came, or where none comes, of the next one, for which the broker is asked once.
    """

    def __init__(self, app: "App") -> None:
        self._app = app
        self._ends: dict[TP, _Ends] = {}
        self._waiting: dict[tuple[TP, int], float] = {}
        """Since when a position has stayed where it is before any record of its partition came."""
        self._asked: dict[tuple[TP, int], float] = {}
        """When the records at such positions were written."""

    async def ages(
        self, now: float, wall: float, ends: Mapping[TP, int], positions: Mapping[TP, int]
    ) -> dict[TP, float]:
        """Seconds for each partition, 0 where nothing is unread.

        Args:
            now: of a clock that only goes on.
            wall: Unix time.
            ends: the offset after the last record.
            positions: the offset to be read next.
        """
        self._ends = {tp: self._ends.get(tp) or _Ends() for tp in ends}
        for tp, seen in self._ends.items():
            seen.look(now, ends[tp], positions[tp])
        from_before = {tp for tp, seen in self._ends.items() if seen.is_from_before(positions[tp])}
        came = {tp: at for ledger in self._app.ledgers for tp, at in ledger.written_s().items()}
        asked = await self._asked_for(now, {(tp, positions[tp]) for tp in from_before if tp not in came})
        written = {tp: at for tp, at in (came | asked).items() if tp in from_before}
        return {
            tp: max(seen.age(now), wall - written[tp] if tp in written else 0.0)
            for tp, seen in self._ends.items()
        }

    async def _asked_for(self, now: float, wanted: set[tuple[TP, int]]) -> dict[TP, float]:
        """What is known of these positions from the broker, which is asked for those that have waited."""
        self._waiting = {key: self._waiting.get(key, now) for key in wanted}
        self._asked = {key: at for key, at in self._asked.items() if key in wanted}
        due = {key for key, since in self._waiting.items() if now - since >= _ASK_AFTER_S} - {*self._asked}
        if due:
            self._waiting.update(dict.fromkeys(due, now))  # if it fails
            try:
                found = await written_s(self._app, dict(due))
            except OpenAnomalyError as exc:
                log.debug("%s: the age of what is unread is not known: %s", self._app.role, exc)
            else:
                self._asked.update({(tp, at): found[tp] for tp, at in due if tp in found})
        return {tp: at for (tp, _), at in self._asked.items()}


class _Ends:
    """When the end of a partition was seen where."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()
        self._dated_from: int | None = None
        """Records from this offset on came between two looks that are remembered."""

    def look(self, now: float, end: int, position: int) -> None:
        """Take note of an end, and forget what lies before `position`."""
        if not self._seen or end > self._seen[-1][1]:
            self._seen.append((now, end))
        if self._dated_from is None:
            self._dated_from = end
        while self._seen and self._seen[0][1] <= position:
            self._dated_from = max(self._dated_from, self._seen.popleft()[1])
        if len(self._seen) > _ENDS_KEPT:
            self._seen = deque(list(self._seen)[::2])

    def is_from_before(self, position: int) -> bool:
        """Whether the record at `position` was there before that could be seen."""
        return self._dated_from is not None and position < self._dated_from

    def age(self, now: float) -> float:
        """Seconds since the look that found something unread; 0 if nothing is."""
        return now - self._seen[0][0] if self._seen else 0.0
