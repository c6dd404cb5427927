"""Shares of groups: what the partitions tell of a step is added up, and becomes samples of `anomaly_rate`."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.fields import MOST_BYTES
from openanomaly.core.frames import SampleFrame
from openanomaly.core.group_frames import GroupCounts, Through
from openanomaly.core.series_column import SeriesColumn

WAIT_MS = 5_000
"""How long a step waits for partitions that are not through it; and one that is late for the others' part."""
LEAST_SERIES = 5
"""With a score, for a group to have a share: one series in an episode is no incident of its group."""
MOST_WAITING = 200_000
"""Counts that wait at a time; steps that have waited longest give way."""
_REMEMBERED = 100_000

Token = TypeVar("Token")
_Pipeline = tuple[str, int]
"""Name and step_ms."""


@dataclass(slots=True)
class _Waiting(Generic[Token]):
    since_ms: int
    due_ms: int = 0
    """When no partition has more of it, as far as they have told."""
    is_late: bool = False
    sources: list[int] = field(default_factory=list)
    counts: list[GroupCounts] = field(default_factory=list)
    tokens: list[Token] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Settled(Generic[Token]):
    """A step of a pipeline's groups.

    Attributes:
        frame: the shares, as samples; None where there is none.
        missing: partitions that were not through it in time.
        late: groups that had a newer share already, and get none.
        small: groups that had too few series.
        tokens: of all that was told of the step.
    """

    pipeline: str
    frame: SampleFrame | None
    missing: frozenset[int]
    late: int
    small: int
    tokens: list[Token]


class Shares(Generic[Token]):
    """Adds up what partitions tell. Time is passed in, in ms of any clock that does not go back."""

    def __init__(self, partitions: int, wait_ms: int = WAIT_MS) -> None:
        self._partitions = range(partitions)
        self._wait_ms = wait_ms
        self._waiting: dict[tuple[str, int, int], _Waiting[Token]] = {}
        self._through: dict[_Pipeline, dict[int, int]] = {}
        self._newest: OrderedDict[bytes, int] = OrderedDict()
        """By group, the newest step that has a share."""
        self._held = 0

    def __len__(self) -> int:
        """How many counts wait."""
        return self._held

    def clear(self) -> None:
        """Forget what waits: it is told again, to us or another."""
        self._waiting.clear()
        self._through.clear()
        self._held = 0

    def take(self, partition: int, counts: GroupCounts, now_ms: int, token: Token) -> None:
        """What `partition` tells of a step; `token` comes back when that is settled."""
        key = counts.pipeline, counts.step_ms, counts.bucket
        waiting = self._waiting.get(key)
        if waiting is None:
            waiting = self._waiting[key] = _Waiting(now_ms)
        waiting.is_late |= counts.is_late
        due_ms = now_ms + counts.due_in_ms + (self._wait_ms if counts.is_late else 0)
        waiting.due_ms = max(waiting.due_ms, due_ms)
        waiting.sources.append(partition)
        waiting.counts.append(counts)
        waiting.tokens.append(token)
        self._held += 1

    def pass_through(self, partition: int, through: Through) -> None:
        """`partition` has told all there was of steps up to this one."""
        known = self._through.setdefault((through.pipeline, through.step_ms), {})
        known[partition] = max(known.get(partition, through.bucket), through.bucket)

    def settle(self, now_ms: int, received_ms: int = 0) -> Iterator[Settled[Token]]:
        """Steps that every partition is through, and those that have waited long enough.

        One that is late also waits for late ones before it, so that the shares of a group come in their
        order; but not much longer. `received_ms` is the wall clock.
        """
        given_up = self._oldest(self._held - MOST_WAITING)
        before: _Pipeline | None = None
        for key in sorted(self._waiting):
            pipeline, step_ms, bucket = key
            waiting = self._waiting[key]
            waited_ms = now_ms - waiting.due_ms
            missing = self._missing(pipeline, step_ms, bucket)
            is_due = waited_ms >= (self._wait_ms if missing else 0)
            if waiting.is_late and before == (pipeline, step_ms):
                is_due = waited_ms >= 2 * self._wait_ms
            if is_due or key in given_up:
                del self._waiting[key]
                self._held -= len(waiting.counts)
                yield self._settled(pipeline, step_ms, bucket, waiting, missing, received_ms)
            elif waiting.is_late:
                before = pipeline, step_ms

    def _missing(self, pipeline: str, step_ms: int, bucket: int) -> frozenset[int]:
        known = self._through.get((pipeline, step_ms), {})
        return frozenset(p for p in self._partitions if known.get(p, bucket - 1) < bucket)

    def _oldest(self, counts: int) -> set[tuple[str, int, int]]:
        """Steps with so many counts that have waited longest."""
        out: set[tuple[str, int, int]] = set()
        if counts <= 0:
            return out
        for key, waiting in sorted(self._waiting.items(), key=lambda item: item[1].since_ms):
            out.add(key)
            counts -= len(waiting.counts)
            if counts <= 0:
                break
        return out

    def _settled(
        self,
        pipeline: str,
        step_ms: int,
        bucket: int,
        waiting: _Waiting[Token],
        missing: frozenset[int],
        received_ms: int,
    ) -> Settled[Token]:
        blocks, scored, anomalous = _added(waiting.sources, waiting.counts)
        large = scored >= LEAST_SERIES
        ids = SeriesColumn.of(blocks).ids
        new = np.array([self._is_new(key.tobytes(), bucket) for key in ids], bool) if blocks else large
        at = np.flatnonzero(large & new)
        n = at.size
        frame = SampleFrame(
            SeriesColumn.of([blocks[i] for i in at.tolist()]),
            np.arange(n, dtype=np.uint32),
            np.full(n, (bucket + 1) * step_ms - 1, np.int64),
            anomalous[at] / scored[at],
            received_ms,
            of_groups=True,
        )
        late, small = int((~new).sum()), int((new & ~large).sum())
        return Settled(pipeline, frame if n else None, missing, late, small, waiting.tokens)

    def _is_new(self, group: bytes, bucket: int) -> bool:
        if bucket <= self._newest.get(group, bucket - 1):
            return False
        self._newest[group] = bucket
        self._newest.move_to_end(group)
        if len(self._newest) > _REMEMBERED:
            self._newest.popitem(last=False)  # windows know it, too
        return True


def of_one(counts: Sequence[GroupCounts], received_ms: int) -> Iterator[SampleFrame]:
    """The samples of what a lone partition tells of steps that are complete, step by step."""
    shares: Shares[None] = Shares(0, wait_ms=0)
    for c in counts:
        shares.take(0, replace(c, due_in_ms=0, is_late=False), 0, None)
    for settled in shares.settle(0, received_ms):
        if settled.frame is not None:
            yield settled.frame


def records(frame: SampleFrame) -> Iterator[bytes]:
    """The shares of a step as one record, or as several where it is too long for one."""
    record = frame.encode()
    n = len(frame.row)
    if len(record) <= MOST_BYTES or n <= 1:
        yield record
        return
    for half in np.split(np.arange(n), [n // 2]):
        series = SeriesColumn.of([frame.series.block(i) for i in half.tolist()])
        row = np.arange(half.size, dtype=np.uint32)
        times, value = frame.timestamp_ms[half], frame.value[half]
        yield from records(replace(frame, series=series, row=row, timestamp_ms=times, value=value))


Columns = tuple[list[bytes], NDArray[np.int64], NDArray[np.int64]]


def _added(sources: Sequence[int], counts: Sequence[GroupCounts]) -> Columns:
    """Label blocks of the groups; of each, how many series have a score, and are in an episode.

    What a partition tells again of one part is as much as before, or less where it began in its middle.
    """
    known: dict[bytes, int] = {}
    group = [known.setdefault(c.series.block(i), len(known)) for c in counts for i in range(len(c.series))]
    sizes = [len(c.series) for c in counts]
    columns = np.stack(
        [
            np.array(group, np.int64),
            np.repeat(np.array(sources, np.int64), sizes),
            np.repeat(np.array([c.part for c in counts], np.int64), sizes),
            np.concatenate([c.scored for c in counts]).astype(np.int64),
            np.concatenate([c.anomalous for c in counts]).astype(np.int64),
        ]
    )
    columns = columns[:, np.lexsort(columns[::-1])]
    is_last = np.ones(columns.shape[1], bool)
    is_last[:-1] = (columns[:3, 1:] != columns[:3, :-1]).any(axis=0)
    number, _, _, scored, anomalous = columns[:, is_last]
    out = np.zeros((2, len(known)), np.int64)
    np.add.at(out[0], number, scored)
    np.add.at(out[1], number, anomalous)
    return list(known), out[0], out[1]
