"""What partitions tell each other of groups: how many of their series are in an episode <-> bytes.

The schema is proto/openanomaly/v1/frames.proto; how records are read is said in core/frames.py.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.fields import MOST_BYTES, column, parse
from openanomaly.core.series import partition_of
from openanomaly.core.series_column import SeriesColumn
from openanomaly.errors import MalformedFrameError
from openanomaly.pb.openanomaly.v1 import frames_pb2 as pb

VERSION = 1


def no_groups() -> SeriesColumn:
    return SeriesColumn.of([])


def _no_counts() -> NDArray[np.uint32]:
    return np.zeros(0, np.uint32)


@dataclass(frozen=True, slots=True)
class GroupCounts:
    """One step of the S groups of a pipeline, as one partition saw it.

    Attributes:
        part: a stretch of the partition's run between two checkpoints. After a crash the counts of one are
            told again, as large as before or smaller; those of several add up.
        is_final: no more of this step is expected.
        for_all: owners without groups in it are told too. Of a step that is late few partitions have any.
        series: what stands for the groups, with labels: their `anomaly_rate`.
        scored: (S,) uint32, series of the group that have a score for this step.
        anomalous: (S,) uint32, of these in an episode.
    """

    pipeline: str
    step_ms: int
    bucket: int
    part: int
    is_final: bool
    for_all: bool = False
    series: SeriesColumn = field(default_factory=no_groups)
    scored: NDArray[np.uint32] = field(default_factory=_no_counts)
    anomalous: NDArray[np.uint32] = field(default_factory=_no_counts)

    def take(self, at: NDArray[np.int64]) -> "GroupCounts":
        """The same of some of the groups."""
        blocks = [self.series.block(i) for i in at.tolist()]
        series = SeriesColumn.of(blocks, self.series.kind[at])
        return replace(self, series=series, scored=self.scored[at], anomalous=self.anomalous[at])


@dataclass(frozen=True, slots=True)
class GroupFrame:
    """What one partition of samples tells one partition of groups."""

    partition: int
    counts: list[GroupCounts]

    def encode(self) -> bytes:
        return pb.GroupFrame(
            version=VERSION, partition=self.partition, counts=[_to_pb(c) for c in self.counts]
        ).SerializeToString()

    def records(self) -> Iterator[bytes]:
        """The frame as one record, or as several where it is too long for one; what is final comes last."""
        record = self.encode()
        counts, n = self.counts, len(self.counts)
        if len(record) <= MOST_BYTES or (n == 1 and len(counts[0].series) <= 1):
            yield record
            return
        if n == 1:
            halves = np.split(np.arange(len(counts[0].series)), [len(counts[0].series) // 2])
            first, second = (counts[0].take(half) for half in halves)
            counts, n = [replace(first, is_final=False), second], 2
        for some in (counts[: n // 2], counts[n // 2 :]):
            yield from GroupFrame(self.partition, some).records()

    @classmethod
    def decode(cls, record: bytes) -> "GroupFrame":
        m = parse(pb.GroupFrame, record, VERSION)
        return cls(m.partition, [_from_pb(c) for c in m.counts])


def by_owner(counts: Sequence[GroupCounts], partitions: int) -> list[list[GroupCounts]]:
    """For each partition of groups what it is told: of its groups, and some steps also where it has none."""
    out: list[list[GroupCounts]] = [[] for _ in range(partitions)]
    for c in counts:
        owner = partition_of(c.series.ids, partitions)
        for number in range(partitions):
            at = np.flatnonzero(owner == number)
            if at.size or c.for_all:
                out[number].append(c if at.size == len(owner) else c.take(at))
    return out


def _to_pb(c: GroupCounts) -> pb.GroupCounts:
    return pb.GroupCounts(
        pipeline=c.pipeline,
        step_ms=c.step_ms,
        bucket=c.bucket,
        part=c.part,
        is_final=c.is_final,
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
    return GroupCounts(
        m.pipeline,
        m.step_ms,
        m.bucket,
        m.part,
        m.is_final,
        series=series,
        scored=column(m.scored, "<u4", "scored series", n),
        anomalous=column(m.anomalous, "<u4", "anomalous series", n),
    )
