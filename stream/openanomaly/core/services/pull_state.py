"""What pull mode knows of a pipeline over a restart: windows, and up to where their scores are written."""

import struct
from dataclasses import dataclass
from typing import Protocol

import xxhash

from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.errors import MalformedFrameError, UnknownVersionError

VERSION = 1
_MAGIC = b"openanomaly pull\n"
_HEAD = struct.Struct("<IQQq")  # version, checksum of what follows it, definition, time of the newest step


class StateStore(Protocol):
    """Keeps the state of pipelines by name. Each is written and read by one thread at a time."""

    def load(self, name: str) -> bytes | None:
        """What was saved last, whole; None if there is nothing.

        Raises:
            OSError: it cannot be read.
        """
        ...

    def save(self, name: str, state: bytes) -> None:
        """Keep `state`, durably; after a crash there is all of it, or all of the one before.

        Raises:
            OSError: it cannot be written.
        """
        ...


@dataclass(frozen=True, slots=True)
class PullState:
    """
    Attributes:
        definition: of the pipeline whose windows these are; see `definition_of`.
        done_ms: time of the newest step whose scores are written.
        windows: a dump of LocalScoring.
    """

    definition: int
    done_ms: int
    windows: bytes

    def encode(self) -> bytes:
        rest = struct.pack("<Qq", self.definition, self.done_ms) + self.windows
        return _MAGIC + struct.pack("<IQ", VERSION, xxhash.xxh3_64_intdigest(rest)) + rest

    @classmethod
    def decode(cls, state: bytes) -> "PullState":
        """
        Raises:
            MalformedFrameError: it is no state, or not all of one.
            UnknownVersionError: a newer release wrote it.
        """
        start = len(_MAGIC) + _HEAD.size
        if not state.startswith(_MAGIC) or len(state) < start:
            raise MalformedFrameError(f"{len(state)} bytes are no state of a pipeline")
        version, checksum, definition, done_ms = _HEAD.unpack_from(state, len(_MAGIC))
        if version > VERSION:
            raise UnknownVersionError(f"a state of version {version}, this release reads up to {VERSION}")
        if xxhash.xxh3_64_intdigest(state[len(_MAGIC) + struct.calcsize("<IQ") :]) != checksum:
            raise MalformedFrameError("a state of a pipeline is damaged: its checksum does not fit")
        return cls(definition, done_ms, state[start:])


def definition_of(pipeline: Pipeline) -> int:
    """Names what the windows of a pipeline hold: of another query or step they would be other series."""
    return xxhash.xxh3_64_intdigest(f"{pipeline.query}\n{pipeline.window}".encode())
