"""Parts of a partition's run, by which its counts of groups are told apart.

A run that is repeated after a crash tells again what it told before, and must say so: else it would be added.
A part goes from one checkpoint to the next. Its name is where it starts, and pages of row state say at each
checkpoint which part ends and which begins: a checkpoint of which only some pages were written is not where
the repetition begins, but where the part ended all the same.
"""

from typing import NamedTuple

import xxhash

from openanomaly.pb.openanomaly.v1 import changelog_pb2 as pb


class Start(NamedTuple):
    """Where a part starts: behind so many samples, and behind the tick of that time."""

    samples: int
    tick_ms: int

    @property
    def uid(self) -> int:
        return xxhash.xxh3_64_intdigest(f"{self.samples} {self.tick_ms}".encode()) >> 1


class Parts:
    """Which part of its run a partition is in.

    Attributes:
        now: the start of this part.
        end: where it ended, if this is a repetition and has not come there; the next part starts there.
    """

    def __init__(self) -> None:
        self.now = Start(0, 0)
        self.end: Start | None = None
        self._sequence = -1
        self._restored: tuple[Start, Start] | None = None

    def restore(self, page: pb.StatePage) -> None:
        """Take what a page says, if it is the newest so far."""
        if page.HasField("part") and page.sequence > self._sequence:
            self._sequence = page.sequence
            before, after = page.part_before, page.part
            self._restored = Start(before.samples, before.tick_ms), Start(after.samples, after.tick_ms)

    def begin(self, samples: int) -> None:
        """Inputs begin with the samples of this offset."""
        self.now, self.end = self._restored or (Start(samples, 0), None)
        self._restored = None

    def ends_before(self, samples: int, tick_ms: int) -> bool:
        """Whether a part that is repeated ended before the input that leads there."""
        return self.end is not None and (samples, tick_ms) > self.end

    def next(self) -> None:
        """The part that is repeated is over."""
        assert self.end is not None
        self.now, self.end = self.end, None

    def at_checkpoint(self, samples: int, tick_ms: int) -> tuple[Start, Start]:
        """The part that ends and the one that begins with a checkpoint here; a repeated one goes on."""
        return self.now, self.end or Start(samples, tick_ms)
