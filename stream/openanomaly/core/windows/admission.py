"""Who gets a row: new series of a block, as far as the budget goes, and what is known of them then."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.frames import SampleFrame
from openanomaly.core.series import Ids, Labels, decode_labels
from openanomaly.core.windows import buckets
from openanomaly.core.windows.block import Block
from openanomaly.core.windows.catalogue import UNWANTED
from openanomaly.core.windows.counters import RATE, wants_rate
from openanomaly.errors import MalformedFrameError, MalformedRequestError

_BASE_FROM = 65_536.0
"""Values at least this large are stored relative to the row's first one: float32 has 24 bits."""


@dataclass
class Budget:
    """How many series a process may hold, over all its partitions and blocks."""

    limit: int
    used: int = 0

    def take(self, wanted: int) -> int:
        """How many of `wanted` new series may be admitted."""
        granted = max(0, min(wanted, self.limit - self.used))
        self.used += granted
        return granted

    def give(self, n: int) -> None:
        self.used -= n


class Refused:
    """Labels of the newest series that no block wanted: a pipeline that comes may want them.

    Receivers send labels now and then only, and may hear of a new pipeline before we do.
    """

    def __init__(self, limit: int = 8192) -> None:
        self._limit = limit
        self._blocks: dict[bytes, bytes] = {}

    def remember(self, frame: SampleFrame, series: NDArray[np.int64]) -> None:
        """Keep the label blocks of `series` of a frame."""
        for i in series[-self._limit :].tolist():
            self._blocks[frame.series.ids[i].tobytes()] = frame.series.block(i)
        while len(self._blocks) > self._limit:
            del self._blocks[next(iter(self._blocks))]

    def block(self, series_id: NDArray[np.uint64]) -> bytes:
        """The label block of a series, empty if it is not known."""
        return self._blocks.get(series_id.tobytes(), b"")


def admit(
    block: Block,
    others: Sequence[Block],
    frame: SampleFrame,
    new: NDArray[np.int64],
    budget: Budget,
    refused: Refused,
) -> int:
    """Give rows to those of the `new` series that `block` wants, as far as the budget goes.

    Args:
        others: the other blocks of the partition.
        new: positions in the series of `frame`.
        refused: who was looked at before, by pipelines that were other ones.

    Returns:
        How many of them have a row in no other block.

    Raises:
        MalformedFrameError: labels of one cannot be read.
    """
    ids: Ids = frame.series.ids
    known = _known_labels(others, frame, new, refused)
    if not (new := new[[bool(b) for b in known]]).size:
        return 0
    known = [b for b in known if b]
    try:
        labels = [decode_labels(b) for b in known]
    except MalformedRequestError as exc:
        raise MalformedFrameError(str(exc)) from exc
    members = members_of(block, labels)
    wanted = np.logical_or.reduce(members)
    if not wanted.all():
        block.catalogue.refuse(ids[new[~wanted]])
    granted = budget.take(int(wanted.sum()))
    chosen = np.flatnonzero(wanted)[:granted]
    if not chosen.size:
        return 0
    at = new[chosen]
    first = _first_samples(frame, at)
    kind = np.array([_kind(block, labels[i], int(frame.series.kind[new[i]])) for i in chosen], np.uint8)
    counting = block.spec.aggregate == "count"
    base = np.zeros(len(at)) if counting else _bases(frame.value[first], kind)
    blocks = [known[i] for i in chosen.tolist()]
    first_ms = frame.timestamp_ms[first]
    born = np.where(buckets.is_time(first_ms), first_ms, 0) // block.spec.step_ms
    distinct = in_none(others, ids[at])
    rows = block.catalogue.admit(ids[at], blocks, kind, born, base, block.ring.newest)
    block.grow()
    block.fresh(rows, [m[chosen] for m in members])
    block.counts["admitted"] += rows.size
    if block.newborn is not None:
        block.newborn.append(rows)
    return distinct


def _known_labels(
    others: Iterable[Block], frame: SampleFrame, new: NDArray[np.int64], refused: Refused
) -> list[bytes]:
    """Label blocks of series that a block does not have: the frame's, another block's, or of one refused.

    Without either the series waits for a frame with its labels, which receivers send now and then.
    """
    out = [frame.series.block(i) for i in new.tolist()]
    for other in others:
        if all(out):
            break
        rows = other.catalogue.find(frame.series.ids[new])
        for i in np.flatnonzero((rows >= 0) & (rows != UNWANTED)).tolist():
            out[i] = out[i] or other.catalogue.labels[rows[i]]
    return [block or refused.block(frame.series.ids[i]) for block, i in zip(out, new.tolist(), strict=True)]


def in_none(blocks: Iterable[Block], ids: Ids) -> int:
    """How many of the series have a row in none of `blocks`."""
    held = np.zeros(len(ids), bool)
    for block in blocks:
        held |= block.catalogue.holds(ids)
    return int((~held).sum())


def members_of(block: Block, labels: list[Labels]) -> list[NDArray[np.bool_]]:
    """Per pipeline of the block, which series it selects."""
    cache: dict[str, NDArray[np.bool_]] = {}
    out = []
    for scoring in block.scorings:
        selector = scoring.pipeline.selector
        text = scoring.pipeline.pipeline.selector
        if text not in cache:
            cache[text] = np.fromiter((selector.matches(x) for x in labels), bool, len(labels))
        out.append(cache[text])
    return out


def _kind(block: Block, labels: Labels, kind: int) -> int:
    name = next((value for label, value in labels if label == "__name__"), "")
    return kind | RATE if wants_rate(block.spec.transform, kind, name) else kind


def _first_samples(frame: SampleFrame, series: NDArray[np.int64]) -> NDArray[np.int64]:
    """Position of the first sample of each of `series`; of the first usable one, where there is one."""
    first = np.zeros(len(frame.series), np.int64)
    order = np.arange(frame.row.size)
    timely = buckets.is_time(frame.timestamp_ms)
    for some in (order, order[timely], order[timely & np.isfinite(frame.value)]):
        first[frame.row[some][::-1]] = some[::-1]
    return first[series]


def _bases(value: NDArray[np.float64], kind: NDArray[np.uint8]) -> NDArray[np.float64]:
    """What the steps of new rows are stored relative to: nothing, but for large gauges."""
    large = np.isfinite(value) & (np.abs(value) >= _BASE_FROM) & ((kind & RATE) == 0)
    return np.where(large, value, 0.0)
