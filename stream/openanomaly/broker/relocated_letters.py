"""Dead letters that move with their installation to other topics and another number of partitions."""

import time
from collections.abc import Mapping
from typing import Any

from google.protobuf.message import DecodeError

from openanomaly.broker.notes import CRASH, REPLAYED
from openanomaly.core.frames import SampleFrame, ScoreFrame
from openanomaly.core.windows.migrate import split_samples, split_scores
from openanomaly.errors import MalformedFrameError
from openanomaly.pb.openanomaly.v1 import frames_pb2 as pb

_SLACK_MS = 120_000


class Relocation:
    """Takes letters in their order, and gives those to write in their place.

    Args:
        names: topics of the source -> topics of the target; samples, due, forecasts and scores.
    """

    def __init__(self, names: Mapping[str, str], before: int, partitions: int) -> None:
        self._names = names
        self._before, self._partitions = before, partitions
        self._written = 0
        self._now_of: dict[int, list[int]] = {}
        # Offsets begin anew: a letter must never be taken for one of the record that has its offset now.
        self._noted_ms = int(time.time() * 1000) - _SLACK_MS

    def take(self, offset: int, value: bytes) -> list[bytes]:
        """What becomes of the letter at `offset`: several, if its payload belongs to several partitions."""
        letter = pb.DeadLetter()
        try:
            letter.ParseFromString(value)
        except DecodeError:
            return self._number(offset, [value])
        if letter.reason == REPLAYED:
            return self._replays(letter)
        if letter.reason == CRASH and not letter.set_aside:
            return []  # a note: its record is tried anew where it is now
        if letter.reason == CRASH:
            letter.noted_ms = min(letter.noted_ms, self._noted_ms)
        return self._number(offset, [part.SerializeToString() for part in self._parts(letter)])

    def _number(self, offset: int, values: list[bytes]) -> list[bytes]:
        self._now_of[offset] = list(range(self._written, self._written + len(values)))
        self._written += len(values)
        return values

    def _replays(self, letter: pb.DeadLetter) -> list[bytes]:
        out = []
        for now in self._now_of.get(letter.letter, ()):
            letter.letter = now
            letter.topic = self._names.get(letter.topic, letter.topic)
            out.append(letter.SerializeToString())
        self._written += len(out)
        return out

    def _parts(self, letter: pb.DeadLetter) -> list[pb.DeadLetter]:
        kind = next((i for i, name in enumerate(self._names) if name == letter.topic), None)
        if kind is None:
            return [letter]
        topic, letter.topic = letter.topic, self._names[letter.topic]
        names = list(self._names)
        if topic in names[1:3]:
            # It names rows by their places before the move, where others may be now.
            letter.detail += f" (first 0 of {len(letter.payload)} bytes kept)"
            letter.payload = b""
        elif self._before != self._partitions and (parts := self._split(topic == names[0], letter)):
            return parts
        letter.partition %= self._partitions
        return [letter]

    def _split(self, is_samples: bool, letter: pb.DeadLetter) -> list[pb.DeadLetter]:
        """A letter for each partition that has series of the payload; none if it cannot be read."""
        found: list[tuple[int, Any]]
        try:
            if is_samples:
                found = list(split_samples(SampleFrame.decode(letter.payload), self._partitions))
            else:
                found = list(split_scores(ScoreFrame.decode(letter.payload), self._partitions))
        except MalformedFrameError:
            return []
        out = []
        for number, frame in found:
            part = pb.DeadLetter()
            part.CopyFrom(letter)
            part.partition, part.payload = number, frame.encode(compress=True)
            out.append(part)
        return out
