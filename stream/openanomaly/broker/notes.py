"""How often a record has crashed its worker, counted from the dead letters."""

import traceback
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from aiokafka.errors import KafkaError
from google.protobuf.message import DecodeError

from openanomaly.errors import BrokerError, DeliveryError, RetryableError
from openanomaly.pb.openanomaly.v1 import frames_pb2 as pb

TRIES = 3
"""A record that crashed its worker so often is set aside."""
CRASH = "crash"
"""The reason of a note. Other letters are of records that were refused without a crash."""
REPLAYED = "replayed"
"""The reason of what is no letter, but says that one was put back."""
VERSION = 1
_MOST = 10_000
_SKEW_MS = 60_000
_NOT_OF_A_RECORD = (RetryableError, DeliveryError, BrokerError, KafkaError, OSError)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a record stands. `written_ms` tells it from one that had the offset in a topic since deleted."""

    topic: str
    partition: int
    offset: int
    written_ms: int

    @classmethod
    def of(cls, message: Any) -> "Origin":
        return cls(message.topic, message.partition, message.offset, int(message.timestamp * 1000))

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}] offset {self.offset}"


def is_of_a_record(error: BaseException) -> bool:
    """Whether a record may be the cause of an error; not if the broker, the disk or the network is."""
    return isinstance(error, Exception) and not isinstance(error, _NOT_OF_A_RECORD)


def trace(error: BaseException, limit: int) -> str:
    """The traceback; of a long one its end, where the error is."""
    text = "".join(traceback.format_exception(error)).encode(errors="replace").decode()
    return text if len(text) <= limit else f"(...)\n{text[-limit:]}"


class Notes:
    """The notes that a reader of the dead-letter topic has seen, of the newest `most` records."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._noted: OrderedDict[tuple[str, int, int], list[tuple[int, bool]]] = OrderedDict()

    def add(self, value: bytes) -> None:
        """Take one record of the dead-letter topic, in the order of the topic."""
        try:
            letter = pb.DeadLetter.FromString(value)
        except DecodeError:
            return
        if letter.reason != CRASH or letter.version > VERSION:
            return
        key = letter.topic, letter.partition, letter.offset
        noted = self._noted.setdefault(key, [])
        noted.append((letter.noted_ms, letter.set_aside))
        del noted[:-TRIES]
        self._noted.move_to_end(key)
        while len(self._noted) > self._most:
            self._noted.popitem(last=False)

    def count(self, origin: Origin) -> int:
        """How often the record was noted."""
        return len(self._of(origin))

    def is_set_aside(self, origin: Origin) -> bool:
        return any(set_aside for _, set_aside in self._of(origin))

    def _of(self, origin: Origin) -> list[tuple[int, bool]]:
        noted = self._noted.get((origin.topic, origin.partition, origin.offset), ())
        return [note for note in noted if note[0] + _SKEW_MS >= origin.written_ms]
