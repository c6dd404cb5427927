"""What stands in the dead-letter topic, for people: looked through from its end, and put back.

Nothing is kept between two questions. A topic with one partition is read backwards in pieces, and a
letter is forgotten once its summary is made: memory stays small however much was set aside.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from openanomaly.broker.dead_letter import is_cut, replay_letter
from openanomaly.broker.faust_app import declare, publish
from openanomaly.broker.notes import CRASH, REPLAYED, VERSION
from openanomaly.broker.tail import Tail, tail
from openanomaly.broker.topics import Topics
from openanomaly.core.letters import REACH, Filter, Letter, Outcome, Replay, last_part
from openanomaly.core.summary import summary
from openanomaly.errors import BrokerError, RetryableError
from openanomaly.pb.openanomaly.v1 import frames_pb2 as pb

if TYPE_CHECKING:
    from openanomaly.broker.faust_app import App

UNREADABLE = "unreadable"
"""The reason of what stands in the topic and is no dead letter."""
_PIECE = 256
"""Letters between two looks at whether there are enough."""
_SKEW_MS = 600_000
_PUBLISH_S = 10.0


class Letters:
    """The dead letters of an installation, by any app that is connected to its broker."""

    def __init__(self, app: "App", topics: Topics) -> None:
        self._app = app
        self._name = topics.dead_letter.name
        # Also where nothing is set aside, as in a receiver: asking Kafka for a topic that is not there
        # may create it with the broker's defaults.
        declare(app, topics.dead_letter)
        specs = (topics.samples, topics.due, topics.forecasts, topics.scores, topics.groups)
        self._partitions = {spec.name: spec.partitions for spec in specs}
        self._replaying = asyncio.Lock()

    async def find(self, wanted: Filter, limit: int) -> list[Letter]:
        """The newest `limit` letters that `wanted` chooses, newest first.

        Raises:
            BusUnavailableError, BrokerError: the topic cannot be read.
        """
        found: list[Letter] = []
        replays: dict[int, list[Replay]] = {}
        async with tail(self._app, self._name) as topic:
            before = topic.end if wanted.before is None else wanted.before
            async for piece in _pieces(topic, topic.begin):
                newest_ms = 0
                mine: list[Letter] = []
                async for id_, value in piece:
                    letter = _parse(value)
                    if letter is not None:
                        newest_ms = max(newest_ms, letter.noted_ms)
                        if letter.reason == REPLAYED:
                            _note_replay(replays, letter)
                            continue
                    if id_ < before and _is_wanted(wanted, letter):
                        mine.append(self._letter(id_, letter, value))
                        await asyncio.sleep(0)  # a summary is up to a millisecond of work
                # A replay is behind its letter, so what there is of them has been read.
                found += [replace(x, replays=tuple(replays.get(x.id, ()))) for x in reversed(mine)]
                if len(found) >= limit or 0 < newest_ms < wanted.since_ms - _SKEW_MS:
                    break
        return found[:limit]

    async def get(self, id_: int) -> tuple[Letter, bytes] | None:
        """A letter and its payload, or None if there is none of this id within reach.

        Raises:
            BusUnavailableError, BrokerError: the topic cannot be read.
        """
        async with tail(self._app, self._name) as topic:
            replays = await self._replays(topic, id_)
            value = await self._read(topic, id_)
        if value is None:
            return None
        parsed = _parse(value)
        if parsed is not None and parsed.reason == REPLAYED:
            return None
        letter = self._letter(id_, parsed, value)
        payload = value if parsed is None else parsed.payload
        return replace(letter, replays=tuple(replays.get(id_, ()))), payload

    async def replay(
        self, ids: Collection[int], *, force: bool = False, dry_run: bool = False
    ) -> list[Outcome]:
        """Put letters back where they came from, oldest first; returns once the broker has them.

        Raises:
            BusUnavailableError, BrokerError: the dead letters cannot be read; nothing was replayed.
        """
        out: list[Outcome] = []
        # One after another: whoever comes second sees what the first one replayed.
        async with self._replaying, tail(self._app, self._name) as topic:
            replays = await self._replays(topic, min(ids, default=topic.end))
            for id_ in sorted(set(ids)):
                value = await self._read(topic, id_)
                letter = None if value is None else _parse(value)
                if value is None or (letter is not None and letter.reason == REPLAYED):
                    why = f"there is no such letter among the newest {REACH:,}"
                    out.append(Outcome(id_, "unknown", why=why))
                    continue
                out.append(await self._replay(id_, letter, replays.get(id_, ()), force, dry_run))
                if out[-1].outcome == "failed":
                    rest = [x for x in sorted(set(ids)) if x > id_]
                    out += [Outcome(x, "failed", why="not tried: the one before it failed") for x in rest]
                    break
        return out

    async def _replay(
        self, id_: int, letter: pb.DeadLetter | None, before: Sequence[Replay], force: bool, dry_run: bool
    ) -> Outcome:
        obstacle = self._obstacle(letter)
        if letter is None or obstacle is not None:
            return Outcome(id_, "refused", why=obstacle or "")
        outcome = Outcome(id_, "possible", letter.topic, letter.partition)
        if before and not force:
            why = f"replayed before, as offset {before[-1].offset}; force replays it once more"
            return replace(outcome, outcome="refused", why=why)
        if dry_run:
            return outcome
        try:
            row = letter.partition, letter.key or None, letter.payload
            (offset,) = await publish(self._app, letter.topic, [row], timeout_s=_PUBLISH_S)
        except (RetryableError, BrokerError) as exc:
            return replace(outcome, outcome="failed", why=str(exc))
        done = replace(outcome, outcome="replayed", offset=offset)
        try:
            record = replay_letter(letter, id_, offset)
            await publish(self._app, self._name, [(0, None, record)], timeout_s=_PUBLISH_S)
        except (RetryableError, BrokerError) as exc:
            return replace(done, why=f"replayed, but that was not recorded: {exc}")
        return done

    # -- reading ---------------------------------------------------------------------------------

    async def _replays(self, topic: Tail, start: int) -> dict[int, list[Replay]]:
        """Replays of the letters from `start` on, by letter."""
        found: dict[int, list[Replay]] = {}
        async for _, value in topic.read(max(start, topic.end - REACH), topic.end):
            letter = _parse(value)
            if letter is not None and letter.reason == REPLAYED:
                _note_replay(found, letter)
        return found

    async def _read(self, topic: Tail, id_: int) -> bytes | None:
        if id_ < topic.end - REACH:
            return None
        values = [value async for at, value in topic.read(id_, id_ + 1) if at == id_]
        return values[0] if values else None

    def _letter(self, id_: int, letter: pb.DeadLetter | None, value: bytes) -> Letter:
        obstacle = self._obstacle(letter)
        if letter is None:
            return Letter(id_, UNREADABLE, "", 0, 0, 0, True, "", len(value), None, obstacle)
        known = summary(last_part(letter.topic), letter.payload) if letter.topic in self._partitions else None
        return Letter(
            id_,
            letter.reason,
            letter.topic,
            letter.partition,
            letter.offset,
            letter.noted_ms,
            letter.set_aside,
            letter.detail,
            len(letter.payload),
            known,
            obstacle,
        )

    def _obstacle(self, letter: pb.DeadLetter | None) -> str | None:
        """Why a letter cannot be replayed, whoever asks for it."""
        if letter is None:
            return "it is not a dead letter"
        if letter.version > VERSION:
            return f"it was written by a newer release (version {letter.version}, ours is {VERSION})"
        if letter.reason == CRASH and not letter.set_aside:
            return "it is a note: its record was not set aside but tried again"
        if (kept := is_cut(letter)) is not None:
            return f"it is not whole: {kept}"
        partitions = self._partitions.get(letter.topic)
        if partitions is None:
            return f"no topic {letter.topic!r} is read here; known: {', '.join(self._partitions)}"
        if letter.partition >= partitions:
            return f"{letter.topic} has {partitions} partitions, the letter is of number {letter.partition}"
        return None


def _is_wanted(wanted: Filter, letter: pb.DeadLetter | None) -> bool:
    if letter is None:
        return wanted.chooses("", UNREADABLE, wanted.since_ms, set_aside=True)
    return wanted.chooses(letter.topic, letter.reason, letter.noted_ms, letter.set_aside)


async def _pieces(topic: Tail, begin: int) -> AsyncIterator[AsyncIterator[tuple[int, bytes]]]:
    """The topic in pieces, the last one first; each in its order."""
    stop = topic.end
    first = max(begin, topic.end - REACH)
    while stop > first:
        start = max(first, stop - _PIECE)
        yield topic.read(start, stop)
        stop = start


def _parse(value: bytes) -> pb.DeadLetter | None:
    try:
        return pb.DeadLetter.FromString(value)
    except DecodeError:
        return None


def _note_replay(replays: dict[int, list[Replay]], letter: pb.DeadLetter) -> None:
    known = replays.setdefault(letter.letter, [])
    known.append(Replay(letter.offset, letter.noted_ms))
    known.sort(key=lambda x: x.at_ms)
