"""Dead letters: all that is known of a record that cannot be used, in one record that always fits."""

import asyncio
from typing import Any

import pytest
from aiokafka.errors import KafkaTimeoutError
from faust.types import TP, RecordMetadata

from openanomaly.broker.dead_letter import DeadLetters
from openanomaly.broker.topics import MAX_RECORD_BYTES, topics
from openanomaly.errors import BusUnavailableError
from openanomaly.pb.openanomaly.v1 import frames_pb2 as pb

TOPICS = topics("oa", 4)


class Producer:
    def __init__(self) -> None:
        self.sent: list[tuple[str, int, bytes]] = []
        self.error: Exception | None = None

    async def send(
        self, topic: str, key: bytes | None, value: bytes, partition: int, *_: Any
    ) -> "asyncio.Future[RecordMetadata]":
        future: asyncio.Future[RecordMetadata] = asyncio.get_running_loop().create_future()
        if self.error is not None:
            future.set_exception(self.error)
            return future
        self.sent.append((topic, partition, value))
        where = topic, partition, TP(topic, partition), len(self.sent) - 1
        future.set_result(RecordMetadata(*where, None, None))
        return future


class App:
    """As much of an app as declares a topic and publishes."""

    def __init__(self) -> None:
        self.specs: dict[str, Any] = {}
        self.producer = Producer()

    def topic(self, name: str, **options: Any) -> None:
        pass

    async def maybe_start_producer(self) -> None:
        pass

    @property
    def letter(self) -> pb.DeadLetter:
        ((topic, partition, value),) = self.producer.sent
        assert (topic, partition) == ("oa.dead-letter", 0)
        size = len(value)
        assert size <= MAX_RECORD_BYTES
        return pb.DeadLetter.FromString(value)


def set_aside(
    app: App, key: bytes | None = b"k", value: bytes | None = b"v", detail: str = "checksum differs"
) -> None:
    letters = DeadLetters(app, TOPICS)  # type: ignore[arg-type]
    asyncio.run(letters.set_aside("oa.samples", 3, 12345678901, key, value, detail, "MalformedFrameError"))


def test_a_letter_says_where_the_record_was_what_it_held_and_why_it_was_refused() -> None:
    app = App()
    set_aside(app)
    letter = app.letter
    assert (letter.topic, letter.partition, letter.offset) == ("oa.samples", 3, 12345678901)
    assert (letter.key, letter.payload) == (b"k", b"v")
    assert (letter.reason, letter.detail) == ("MalformedFrameError", "checksum differs")
    assert letter.set_aside
    assert letter.version == 1
    assert letter.noted_ms > 1_600_000_000_000


def test_a_record_without_key_and_value_can_be_set_aside() -> None:
    app = App()
    set_aside(app, key=None, value=None)
    assert (app.letter.key, app.letter.payload) == (b"", b"")


def test_the_topic_is_declared_and_kept_until_its_age_whoever_read_it() -> None:
    app = App()
    DeadLetters(app, TOPICS)  # type: ignore[arg-type]
    assert app.specs == {"oa.dead-letter": TOPICS.dead_letter}
    assert not TOPICS.dead_letter.drop_consumed


@pytest.mark.parametrize(
    ("key_bytes", "value_bytes", "detail_length"),
    [(0, 1_000_000, 10), (0, 1_040_000, 10_000), (110_000, 930_000, 10), (1_040_000, 0, 10_000)],
)
def test_a_letter_always_fits_into_a_record(key_bytes: int, value_bytes: int, detail_length: int) -> None:
    """A record can hold more than we ever write; one that could not be set aside would come for ever."""
    app = App()
    set_aside(app, key=b"k" * key_bytes, value=b"v" * value_bytes, detail="\N{SNOWMAN}" * detail_length)
    letter = app.letter
    assert letter.detail.startswith("\N{SNOWMAN}" * min(detail_length, 2000))
    assert len(letter.payload) == min(value_bytes, 934_464)
    assert (f"first 934464 of {value_bytes} bytes kept" in letter.detail) == (value_bytes > 934_464)
    assert len(letter.key) == min(key_bytes, 32_768)
    assert (f"first 32768 of {key_bytes} bytes of the key kept" in letter.detail) == (key_bytes > 32_768)


def test_a_letter_that_the_broker_does_not_take_is_not_written_off() -> None:
    app = App()
    app.producer.error = KafkaTimeoutError()
    with pytest.raises(BusUnavailableError, match=r"did not take records of oa\.dead-letter"):
        set_aside(app)
