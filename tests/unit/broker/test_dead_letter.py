"""Dead letters: all that is known of a record that cannot be used, in one record that always fits."""

import asyncio
from typing import Any

import pytest
from aiokafka.errors import KafkaTimeoutError
from faust.types import TP, RecordMetadata

from openanomaly.broker.dead_letter import DeadLetters
from openanomaly.broker.notes import Origin
from openanomaly.broker.topics import MAX_RECORD_BYTES, topics
from openanomaly.errors import BusUnavailableError, DeliveryError
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


ORIGIN = Origin("oa.samples", 3, 7, 1_700_000_000_000)


def note(app: App, error: BaseException, times: int = 1, value: bytes = b"v") -> list[pb.DeadLetter]:
    """Notes of that many crashes in a row, each seen by the next worker; what was written."""
    letters = DeadLetters(app, TOPICS)  # type: ignore[arg-type]

    async def go() -> None:
        for _ in range(times):
            seen = len(app.producer.sent)
            await letters.note(error, [(ORIGIN, value)])
            for _, _, written in app.producer.sent[seen:]:
                letters._notes.add(written)

    asyncio.run(go())
    return [pb.DeadLetter.FromString(written) for _, _, written in app.producer.sent]


def a_bug() -> Exception:
    try:
        raise RuntimeError("a bug of ours")
    except RuntimeError as exc:
        return exc


def test_a_record_is_set_aside_with_the_third_note_and_its_traceback() -> None:
    found = note(App(), a_bug(), times=3)
    assert [x.set_aside for x in found] == [False, False, True]
    for letter in found:
        assert (letter.topic, letter.partition, letter.offset) == ("oa.samples", 3, 7)
        assert (letter.payload, letter.reason) == (b"v", "crash")
        assert letter.detail.startswith("Traceback")
        assert "in a_bug" in letter.detail
        assert letter.detail.endswith("RuntimeError: a bug of ours\n")


@pytest.mark.parametrize(
    "error",
    [
        BusUnavailableError("away"),
        DeliveryError("records are missing"),
        KafkaTimeoutError(),
        OSError("disk full"),
        TimeoutError(),
        asyncio.CancelledError(),
    ],
)
def test_an_error_that_no_record_is_the_cause_of_is_not_noted(error: BaseException) -> None:
    assert note(App(), error) == []


def test_a_note_that_the_broker_does_not_take_does_not_hide_the_crash() -> None:
    app = App()
    app.producer.error = KafkaTimeoutError()
    assert note(app, a_bug()) == []


def test_a_note_waits_only_so_long_for_a_broker_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(Producer):
        async def send(self, *_: Any) -> "asyncio.Future[RecordMetadata]":
            return asyncio.get_running_loop().create_future()

    app = App()
    app.producer = Silent()
    monkeypatch.setattr("openanomaly.broker.dead_letter._NOTE_S", 0.01)
    assert note(app, a_bug()) == []


def test_a_note_always_fits_into_a_record_whatever_the_error_says() -> None:
    app = App()
    (letter,) = note(app, RuntimeError("\N{SNOWMAN}" * 10_000 + "\udcff"), value=b"v" * 1_040_000)
    assert len(app.producer.sent[0][2]) <= MAX_RECORD_BYTES
    assert letter.detail.startswith("(...)")
    assert "first 934464 of 1040000 bytes kept" in letter.detail
