"""Counting the crashes of a record from what is in the dead-letter topic."""

import pytest

from openanomaly.broker.notes import CRASH, Notes, Origin
from openanomaly.pb.openanomaly.v1 import frames_pb2 as pb

WRITTEN_MS = 1_700_000_000_000
ORIGIN = Origin("oa.samples", 3, 7, WRITTEN_MS)


def letter(**changes: object) -> bytes:
    fields: dict[str, object] = {
        "version": 1,
        "reason": CRASH,
        "topic": "oa.samples",
        "partition": 3,
        "offset": 7,
        "noted_ms": WRITTEN_MS + 1000,
    }
    return pb.DeadLetter(**{**fields, **changes}).SerializeToString()  # type: ignore[arg-type]


def of(*letters: bytes) -> Notes:
    notes = Notes()
    for value in letters:
        notes.add(value)
    return notes


def test_notes_of_a_record_are_counted() -> None:
    assert of().count(ORIGIN) == 0
    assert of(letter()).count(ORIGIN) == 1
    two = of(letter(), letter(offset=8), letter(noted_ms=WRITTEN_MS + 2000))
    assert two.count(ORIGIN) == 2
    assert not two.is_set_aside(ORIGIN)
    assert of(letter(), letter(), letter(set_aside=True)).is_set_aside(ORIGIN)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(letter(topic="oa.due", set_aside=True), id="another topic"),
        pytest.param(letter(partition=2, set_aside=True), id="another partition"),
        pytest.param(letter(offset=6, set_aside=True), id="another offset"),
        pytest.param(letter(reason="RejectedError", set_aside=True), id="some of its scores were refused"),
        pytest.param(letter(reason="UnknownVersionError", set_aside=True), id="a new release may read it"),
        pytest.param(letter(version=2, set_aside=True), id="of a newer release"),
        pytest.param(letter(noted_ms=WRITTEN_MS - 3_600_000, set_aside=True), id="before it was written"),
        pytest.param(b"\xff not a letter", id="not a letter"),
        pytest.param(b"", id="empty"),
    ],
)
def test_other_letters_do_not_count(other: bytes) -> None:
    notes = of(other)
    assert notes.count(ORIGIN) == 0
    assert not notes.is_set_aside(ORIGIN)


def test_a_worker_whose_clock_is_somewhat_behind_counts_too() -> None:
    assert of(letter(noted_ms=WRITTEN_MS - 30_000)).count(ORIGIN) == 1


def test_notes_of_the_newest_records_are_kept() -> None:
    notes = Notes(most=3)
    for offset in (1, 2, 3, 1, 4, 5):
        notes.add(letter(offset=offset))
    counts = {i: notes.count(Origin("oa.samples", 3, i, WRITTEN_MS)) for i in range(1, 6)}
    assert counts == {1: 2, 2: 0, 3: 0, 4: 1, 5: 1}
