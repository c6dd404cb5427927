"""Shares of groups: what the partitions tell of a step is added up, and becomes samples of `anomaly_rate`."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.frames import SampleFrame
from openanomaly.core.group_frames import GroupCounts
from openanomaly.core.series_column import SeriesColumn

WAIT_MS = 5_000
"""How long a step waits for partitions that have not told of it."""
MOST_WAITING = 4_096
"""Steps that wait at a time; the one that has waited longest gives way."""
_REMEMBERED = 100_000

Token = TypeVar("Token")


@dataclass(slots=True)
class _Waiting(Generic[Token]):
    since_ms: int
    final: set[int] = field(default_factory=set)
    """Partitions that have told all they know."""
    sources: list[int] = field(default_factory=list)
    counts: list[GroupCounts] = field(default_factory=list)
    tokens: list[Token] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Told(Generic[Token]):
    """A step of a pipeline's groups that is settled.

    Attributes:
        frame: the shares, as samples; None where there is none.
        missing: partitions that had not told of it.
        late: groups that had a newer share already, and get none.
        tokens: of all that was told of the step.
    """

    pipeline: str
    frame: SampleFrame | None
    missing: frozenset[int]
    late: int
    tokens: list[Token]


class Rates(Generic[Token]):
    """Adds up what partitions tell. Time is passed in, in ms of any clock that does not go back."""

    def __init__(self, partitions: int, wait_ms: int = WAIT_MS) -> None:
        self._partitions = frozenset(range(partitions))
        self._wait_ms = wait_ms
        self._waiting: dict[tuple[str, int, int], _Waiting[Token]] = {}
        self._newest: OrderedDict[bytes, int] = OrderedDict()
        """By group, the newest step that has a share."""

    def __len__(self) -> int:
        return len(self._waiting)

    def clear(self) -> None:
        """Forget what waits: it is told again, to us or another."""
        self._waiting.clear()

    def take(self, partition: int, counts: GroupCounts, now_ms: int, token: Token) -> None:
        """What `partition` tells of a step."""
        key = counts.pipeline, counts.step_ms, counts.bucket
        waiting = self._waiting.get(key)
        if waiting is None:
            waiting = self._waiting[key] = _Waiting(now_ms)
        if counts.is_final:
            waiting.final.add(partition)
        if len(counts.series):
            waiting.sources.append(partition)
            waiting.counts.append(counts)
        waiting.tokens.append(token)

    def ready(self, now_ms: int) -> Iterator[Told[Token]]:
        """Steps that every partition has told of, and those that have waited long enough.

        Each also waits for those before it, so that the shares of a group come in their order; but not much
        longer.
        """
        too_many = len(self._waiting) - MOST_WAITING
        before: tuple[str, int] | None = None
        for key in sorted(self._waiting):
            pipeline, step_ms, bucket = key
            waiting = self._waiting[key]
            waited_ms = now_ms - waiting.since_ms
            is_due = waiting.final >= self._partitions or waited_ms >= self._wait_ms
            is_first = before != (pipeline, step_ms)
            if (is_due and is_first) or waited_ms >= 2 * self._wait_ms or too_many > 0:
                too_many -= 1
                del self._waiting[key]
                yield self._settle(pipeline, step_ms, bucket, waiting)
            else:
                before = pipeline, step_ms

    def _settle(self, pipeline: str, step_ms: int, bucket: int, waiting: _Waiting[Token]) -> Told[Token]:
        missing = self._partitions - waiting.final
        if not waiting.counts:
            return Told(pipeline, None, missing, 0, waiting.tokens)
        blocks, scored, anomalous = _added(waiting.sources, waiting.counts)
        series = SeriesColumn.of(blocks)
        new = np.array([self._is_new(key.tobytes(), bucket) for key in series.ids], bool)
        late = int(new.size - new.sum())
        if late:
            at = np.flatnonzero(new)
            series = SeriesColumn.of([blocks[i] for i in at.tolist()])
            scored, anomalous = scored[at], anomalous[at]
        n = len(series)
        frame = SampleFrame(
            series,
            np.arange(n, dtype=np.uint32),
            np.full(n, (bucket + 1) * step_ms - 1, np.int64),
            anomalous / scored,
            received_ms=0,  # no source has a delay of its own: it was waited for
            of_groups=True,
        )
        return Told(pipeline, frame if n else None, missing, late, waiting.tokens)

    def _is_new(self, group: bytes, bucket: int) -> bool:
        if bucket <= self._newest.get(group, bucket - 1):
            return False
        self._newest[group] = bucket
        self._newest.move_to_end(group)
        if len(self._newest) > _REMEMBERED:
            self._newest.popitem(last=False)  # windows know it, too
        return True


def shares(counts: Sequence[GroupCounts]) -> Iterator[SampleFrame]:
    """The samples of what a lone partition tells, step by step."""
    rates: Rates[None] = Rates(1)
    for c in counts:
        rates.take(0, c, 0, None)
    for told in rates.ready(0):
        if told.frame is not None:
            yield told.frame


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
    n = len(known)
    out = np.zeros((2, n), np.int64)
    np.add.at(out[0], number, scored)
    np.add.at(out[1], number, anomalous)
    return list(known), out[0], out[1]
