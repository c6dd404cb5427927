"""What partitions tell each other of groups: how many of their series are in an episode <-> bytes.

The schema is proto/openanomaly/v1/frames.proto; how records are read is said in core/frames.py.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.fields import MOST_BYTES, column, parse
from openanomaly.core.series import partition_of
from openanomaly.core.series_column import SeriesColumn
from openanomaly.errors import MalformedFrameError
from openanomaly.pb.openanomaly.v1 import frames_pb2 as pb

VERSION = 1


@dataclass(frozen=True, slots=True)
class GroupCounts:
    """One step of the S groups of a pipeline, as one partition saw it.

    Attributes:
        part: a stretch of the partition's run between two checkpoints. After a crash the counts of one are
            told again, as large as before or smaller; those of several add up.
        due_in_ms: so long more of the step may be told.
        is_late: that a partition is through the step does not say that it has no more of it.
        series: what stands for the groups, with labels: their `anomaly_rate`.
        scored: (S,) uint32, series of the group that have a score for this step.
        anomalous: (S,) uint32, of these in an episode.
    """

    pipeline: str
    step_ms: int
    bucket: int
    part: int
    due_in_ms: int
    is_late: bool
    series: SeriesColumn
    scored: NDArray[np.uint32]
    anomalous: NDArray[np.uint32]

    def take(self, at: NDArray[np.int64]) -> "GroupCounts":
        """The same of some of the groups."""
        blocks = [self.series.block(i) for i in at.tolist()]
        series = SeriesColumn.of(blocks, self.series.kind[at])
        return replace(self, series=series, scored=self.scored[at], anomalous=self.anomalous[at])


class Through(NamedTuple):
    """Steps of a pipeline up to `bucket` are over by the wall clock, and told."""

    pipeline: str
    step_ms: int
    bucket: int


@dataclass(slots=True)
class GroupNews:
    """What a partition has to tell of its groups: the counts first."""

    counts: list[GroupCounts] = field(default_factory=list)
    through: list[Through] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.counts or self.through)

    def add(self, after: "GroupNews") -> None:
        self.counts += after.counts
        self.through += after.through


@dataclass(frozen=True, slots=True)
class GroupFrame:
    """What one partition of samples tells one partition of groups."""

    partition: int
    counts: list[GroupCounts]
    through: list[Through] = field(default_factory=list)

    def records(self, through: bytes | None = None) -> Iterator[bytes]:
        """The frame as one record, or as several where it is too long for one.

        `through` is what `encode_through` makes of it, where it is told to several.
        """
        end = encode_through(self.through) if through is None else through
        record = self._head() + end
        counts, n = self.counts, len(self.counts)
        if len(record) <= MOST_BYTES or (n <= 1 and all(len(c.series) <= 1 for c in counts)):
            yield record
            return
        if n == 1:
            halves = np.split(np.arange(len(counts[0].series)), [len(counts[0].series) // 2])
            counts, n = [counts[0].take(half) for half in halves], 2
        yield from GroupFrame(self.partition, counts[: n // 2]).records(b"")
        yield from GroupFrame(self.partition, counts[n // 2 :]).records(end)

    def _head(self) -> bytes:
        return pb.GroupFrame(
            version=VERSION, partition=self.partition, counts=[_to_pb(c) for c in self.counts]
        ).SerializeToString()

    @classmethod
    def decode(cls, record: bytes) -> "GroupFrame":
        m = parse(pb.GroupFrame, record, VERSION)
        through = [Through(t.pipeline, t.step_ms, t.bucket) for t in m.through]
        return cls(m.partition, [_from_pb(c) for c in m.counts], through)


def encode_through(through: Sequence[Through]) -> bytes:
    """The end of a record: the fields of a message may stand one behind the other."""
    return pb.GroupFrame(through=[pb.Through(**t._asdict()) for t in through]).SerializeToString()


def by_owner(counts: Sequence[GroupCounts], partitions: int) -> dict[int, list[GroupCounts]]:
    """What each partition of groups is told of the groups that it owns."""
    out: dict[int, list[GroupCounts]] = {}
    for c in counts:
        owner = partition_of(c.series.ids, partitions)
        order = np.argsort(owner, kind="stable")
        for at in np.split(order, np.flatnonzero(np.diff(owner[order])) + 1):
            if at.size:
                mine = c if at.size == len(owner) else c.take(at)
                out.setdefault(int(owner[at[0]]), []).append(mine)
    return out


def _to_pb(c: GroupCounts) -> pb.GroupCounts:
    return pb.GroupCounts(
        pipeline=c.pipeline,
        step_ms=c.step_ms,
        bucket=c.bucket,
        part=c.part,
        due_in_ms=c.due_in_ms,
        is_late=c.is_late,
        series=c.series.to_pb(compress=False),
        scored=c.scored.tobytes(),
        anomalous=c.anomalous.tobytes(),
    )


def _from_pb(m: pb.GroupCounts) -> GroupCounts:
    series = SeriesColumn.from_pb(m.series)
    if not series.has_labels.all():
        raise MalformedFrameError(f"groups of pipeline {m.pipeline!r} without labels")
    if m.step_ms < 1:
        raise MalformedFrameError(f"groups of pipeline {m.pipeline!r} have a step of {m.step_ms} ms")
    n = len(series)
    scored = column(m.scored, "<u4", "scored series", n)
    if n and not scored.min():
        raise MalformedFrameError(f"a group of pipeline {m.pipeline!r} without series")
    anomalous = column(m.anomalous, "<u4", "anomalous series", n)
    return GroupCounts(
        m.pipeline, m.step_ms, m.bucket, m.part, m.due_in_ms, m.is_late, series, scored, anomalous
    )
