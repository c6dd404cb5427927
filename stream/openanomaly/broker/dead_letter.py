"""Records that can never be used, set aside with their reason; and notes of those that crash their worker.

A record at which a worker crashes is noted before the crash. With its third note it is set aside:
whoever reads it next passes over it (docs/decisions/0013-poisoned-records.md).
"""

import asyncio
import logging
import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from openanomaly.broker.faust_app import Row, declare, publish
from openanomaly.broker.notes import CRASH, REPLAYED, TRIES, VERSION, Notes, Origin, is_of_a_record, trace
from openanomaly.broker.tail import read_tail
from openanomaly.broker.topics import MAX_RECORD_BYTES, Topics
from openanomaly.pb.openanomaly.v1 import frames_pb2 as pb

if TYPE_CHECKING:
    from openanomaly.broker.faust_app import App

log = logging.getLogger(__name__)

_DETAIL_LIMIT = 2000
_TRACE_LIMIT = 4000
_KEY_LIMIT = 32 * 1024
_PAYLOAD_LIMIT = MAX_RECORD_BYTES - 64 * 1024
_CUT = re.compile(r"\(first \d+ of \d+ bytes (of the key )?kept\)")
_NOTE_S = 5.0
"""A broker that is away must not hold up a crash."""
_MOST_READ = 4096
_SLACK_S = 3600.0


class DeadLetters:
    """Writes to the dead-letter topic, and reads the notes in it."""

    def __init__(self, app: "App", topics: Topics) -> None:
        self._app = app
        self._topic = topics.dead_letter.name
        self._notes = Notes()
        self._read_to = 0
        self._generation: int | None = None
        self._reading = asyncio.Lock()
        ages_s = [
            t.retention_s
            for t in (topics.samples, topics.due, topics.forecasts, topics.scores, topics.groups)
        ]
        known_s = [age_s for age_s in ages_s if age_s is not None]
        # A note is younger than its record; Kafka deletes whole segments, so that records live longer.
        self._needed_s = 1.5 * max(known_s) + _SLACK_S if len(known_s) == len(ages_s) else None
        declare(app, topics.dead_letter)

    async def set_aside(
        self,
        topic: str,
        partition: int,
        offset: int,
        key: bytes | None,
        value: bytes | None,
        detail: str,
        reason: str,
    ) -> None:
        """Keep a record and why it was refused; returns once the broker has it."""
        log.error("%s[%d] offset %d set aside (%s): %s", topic, partition, offset, reason, detail)
        origin = Origin(topic, partition, offset, 0)
        letter = _letter(origin, key or b"", value or b"", detail[:_DETAIL_LIMIT], reason, set_aside=True)
        await publish(self._app, self._topic, [(0, None, letter)])

    # -- records that crash their worker ---------------------------------------------------------

    async def catch_up(self) -> None:
        """Read the notes there are, once after each rebalance: a partition may have crashed its last owner.

        Raises:
            BusUnavailableError: the broker does not answer.
        """
        generation = self._app.consumer_generation_id
        if generation == self._generation:
            return
        async with self._reading:
            if generation == self._generation:
                return
            needed_ms = 0 if self._needed_s is None else int((time.time() - self._needed_s) * 1000)
            self._read_to = await read_tail(
                self._app, self._topic, self._read_to, max(0, needed_ms), _MOST_READ, self._notes.add
            )
            self._generation = generation

    def is_suspect(self, origin: Origin) -> bool:
        """Whether the record crashed a worker, alone or among others."""
        return self._notes.count(origin) > 0

    def is_set_aside(self, origin: Origin) -> bool:
        """Whether to pass over the record; if so, it says so."""
        if not self._notes.is_set_aside(origin):
            return False
        log.error("%s crashed its worker %d times; it is set aside, work goes on without it", origin, TRIES)
        return True

    async def note(self, error: BaseException, records: Sequence[tuple[Origin, bytes]]) -> None:
        """Note that `error`, of which the worker is about to crash, came with these records.

        Nothing is noted of an error that is not about a record. Never raises: the crash is what counts,
        and a note that is missing costs one more try.
        """
        if not records or not is_of_a_record(error):
            return
        detail = trace(error, _TRACE_LIMIT)
        letters: list[Row] = []
        try:
            for origin, value in records:
                tries = self._notes.count(origin) + 1
                ends = "set aside" if tries >= TRIES else "tried again"
                log.error(
                    "%s crashes its worker (%d of %d), it will be %s: %r", origin, tries, TRIES, ends, error
                )
                letter = _letter(origin, b"", value, detail, CRASH, set_aside=tries >= TRIES)
                letters.append((0, None, letter))
            await publish(self._app, self._topic, letters, timeout_s=_NOTE_S)
        except Exception as exc:
            log.error("%d records could not be noted in %s: %s", len(records), self._topic, exc)


def _letter(origin: Origin, key: bytes, value: bytes, detail: str, reason: str, *, set_aside: bool) -> bytes:
    # Nothing we write is so long, but others can write it; what cannot be set aside comes for ever.
    if len(key) > _KEY_LIMIT:
        detail += f" (first {_KEY_LIMIT} of {len(key)} bytes of the key kept)"
        key = key[:_KEY_LIMIT]
    if len(value) > _PAYLOAD_LIMIT:
        detail += f" (first {_PAYLOAD_LIMIT} of {len(value)} bytes kept)"
        value = value[:_PAYLOAD_LIMIT]
    return pb.DeadLetter(
        version=VERSION,
        reason=reason,
        topic=origin.topic,
        partition=origin.partition,
        offset=origin.offset,
        detail=detail,
        key=key,
        payload=value,
        noted_ms=int(time.time() * 1000),
        set_aside=set_aside,
    ).SerializeToString()


def is_cut(letter: pb.DeadLetter) -> str | None:
    """What of a record that was too long the letter has; None if all of it."""
    found = _CUT.search(letter.detail)
    return None if found is None else found[0][1:-1]


def replay_letter(letter: pb.DeadLetter, id_: int, offset: int) -> bytes:
    """That the letter with this id was put back, as `offset` of its topic and partition."""
    return pb.DeadLetter(
        version=VERSION,
        reason=REPLAYED,
        topic=letter.topic,
        partition=letter.partition,
        offset=offset,
        noted_ms=int(time.time() * 1000),
        letter=id_,
    ).SerializeToString()
