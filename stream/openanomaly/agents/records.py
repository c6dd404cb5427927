"""Reads a topic for a room: every record once, set aside where it cannot be used."""

from collections.abc import Awaitable, Callable
from typing import Any

from prometheus_client import Counter

from openanomaly.broker.dead_letter import DeadLetters
from openanomaly.broker.faust_app import App
from openanomaly.broker.ledger import Ledger
from openanomaly.broker.notes import Origin
from openanomaly.errors import RejectedError


class Records:
    """Hands records to `take`, which says `done` now or later, when nothing of one is needed any more.

    A record that `take` rejects is set aside and finished. One that it crashes of is noted first, and
    passed over once it has crashed its worker too often.
    """

    def __init__(
        self,
        app: App,
        topic: str,
        dead_letters: DeadLetters,
        take: Callable[[Origin, bytes], Awaitable[None]],
        rejected: Counter,
    ) -> None:
        self._ledger = Ledger(app, topic)
        self._dead_letters = dead_letters
        self._take = take
        self._rejected = rejected

    async def read(self, stream: Any) -> None:
        """The agent's work."""
        async for event in stream.noack().events():
            # Never `take()` or a bare `async for value`: Faust acknowledges a record even when its
            # agent raises. The ledger says what is finished.
            await self._dead_letters.catch_up()
            if self._ledger.receive(event):
                message = event.message
                value, message.value = message.value or b"", None
                await self._try(Origin.of(message), value)

    def done(self, origin: Origin) -> None:
        """Nothing of the record is needed any more."""
        self._ledger.done(origin.partition, origin.offset)

    async def set_aside(self, origin: Origin, value: bytes, error: RejectedError) -> None:
        """Keep what can never be used, with the reason; returns once the broker has it."""
        await self._dead_letters.set_aside(
            origin.topic, origin.partition, origin.offset, None, value, str(error), type(error).__name__
        )

    async def _try(self, origin: Origin, value: bytes) -> None:
        if self._dead_letters.is_set_aside(origin):
            self._rejected.inc()
            self.done(origin)
            return
        try:
            await self._take(origin, value)
        except RejectedError as exc:
            self._rejected.inc()
            await self.set_aside(origin, value, exc)
            self.done(origin)
        except Exception as exc:
            await self._dead_letters.note(exc, [(origin, value)])
            raise
