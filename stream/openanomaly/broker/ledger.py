"""Which records of a topic have come and which are finished; the only source of committed offsets."""

from typing import TYPE_CHECKING, Any

from faust.types import TP

from openanomaly.errors import DeliveryError

if TYPE_CHECKING:
    from openanomaly.broker.faust_app import App


class _Partition:
    __slots__ = ("finished", "first", "next", "written_s")

    def __init__(self, begin: int) -> None:
        self.next = begin
        """Offset expected next."""
        self.first = begin
        """Lowest offset that is not finished."""
        self.finished: set[int] = set()
        self.written_s = 0.0
        """When the last record that came was written, as its writer or the broker says; 0 if nobody does."""


class Ledger:
    """One topic of one app. Records must come without a gap; they are released in order.

    Faust delivers twice after each recovery and has lost records in several ways; here the first
    is dropped and the second found at once, while the broker still has them
    (docs/decisions/0011-offsets-by-release.md).
    """

    def __init__(self, app: "App", topic: str) -> None:
        self.topic = topic
        self._app = app
        self._generation: int | None = None
        self._partitions: dict[TP, _Partition] = {}
        app.ledgers.append(self)

    def receive(self, event: Any) -> bool:
        """Take note of a delivered record; False if it is not for us: stale, or a duplicate.

        Raises:
            DeliveryError: records before it were not delivered. The process must restart: it then
                reads them again, or counts them as expired if retention took them.
        """
        message = event.message
        generation = self._app.consumer_generation_id
        if message.generation_id != generation:
            return False  # fetched before a rebalance; its new owner, maybe we, gets it again
        if generation != self._generation:
            self._generation = generation
            self._partitions.clear()
        tp = TP(message.topic, message.partition)
        held = self._partitions.get(tp)
        if held is None:
            begin = self._app.consumer.begin.get(tp)
            held = self._partitions[tp] = _Partition(message.offset if begin is None else begin)
        if message.offset < held.next:
            return False
        if message.offset > held.next:
            raise DeliveryError(
                f"{tp.topic}[{tp.partition}]: offset {message.offset} came, {held.next} was expected: "
                f"{message.offset - held.next} records are missing"
            )
        held.next += 1
        held.written_s = message.timestamp or 0.0
        return True

    def done(self, partition: int, offset: int) -> None:
        """A record is finished; what is finished without a gap is released."""
        tp = TP(self.topic, partition)
        held = self._partitions.get(tp)
        if held is None or not held.first <= offset < held.next:
            return  # of a generation that has ended: it is delivered again
        held.finished.add(offset)
        first = held.first
        while held.first in held.finished:
            held.finished.remove(held.first)
            held.first += 1
        if held.first > first:
            self._app.consumer.release(tp, held.first)

    def release(self, partition: int, through: int) -> None:
        """Every record below `through` is finished, whatever was said of single ones."""
        tp = TP(self.topic, partition)
        self._app.consumer.release(tp, through)
        held = self._partitions.get(tp)
        if held is not None and through > held.first:
            held.first = through
            held.finished = {offset for offset in held.finished if offset >= through}

    def positions(self) -> dict[TP, int]:
        """The offset expected next, of each partition that is ours."""
        begin = self._app.consumer.begin
        out = {tp: offset for tp, offset in begin.items() if tp.topic == self.topic}
        out.update({tp: held.next for tp, held in self._held().items() if tp in out})
        return out

    def written_s(self) -> dict[TP, float]:
        """When the last record that came was written (Unix time), of each partition where that is known."""
        return {tp: held.written_s for tp, held in self._held().items() if held.written_s > 0}

    def _held(self) -> dict[TP, _Partition]:
        """What has come since the last rebalance."""
        return self._partitions if self._generation == self._app.consumer_generation_id else {}
