"""Batches of several requests -> frames, one or more per partition.

A frame costs tens of microseconds however small it is, and each is a record on the broker. So the
samples of all requests of a few milliseconds share frames, and each frame says whose samples it has.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from openanomaly.core import ids_compiled, kernels
from openanomaly.core.fields import fields_of
from openanomaly.core.frames import SampleFrame
from openanomaly.core.gather_compiled import Written, write
from openanomaly.core.intake import Batch
from openanomaly.core.series import Ids
from openanomaly.core.series_column import SeriesColumn, compress_labels

SERIES_BYTES = 16 + 4 + 1
SAMPLE_BYTES = 4 + 8 + 8
FRAME_HEAD_BYTES = 256
"""What a frame has besides its columns and labels, at most, with room for one sample and its series."""


@dataclass(frozen=True, slots=True)
class Cut:
    """One frame, ready to publish. `batches` are the numbers of the batches it may have samples of."""

    partition: int
    record: bytes | memoryview
    batches: frozenset[int]


@dataclass(slots=True)
class _Gathered:
    """S series, each once, and the N samples of all batches; samples are ordered by partition.

    `block` (S,) is the place of a series' labels in `blocks`, -1 where they do not go along, and
    `block_bytes` their length.
    """

    ids: Ids
    kind: NDArray[np.uint8]
    blocks: list[bytes]
    block: NDArray[np.int64]
    block_bytes: NDArray[np.int64]
    row: NDArray[np.intp]
    timestamp_ms: NDArray[np.int64]
    value: NDArray[np.float64]
    batch: NDArray[np.int64] | None
    """(N,) of which batch; None if there is one only."""


def cut(batches: Sequence[Batch], limit_bytes: int, received_ms: int, compress: bool = False) -> list[Cut]:
    """Frames with the samples of `batches`; within a series in the order in which they came.

    Args:
        limit_bytes: no frame is larger, but for one with a single sample.
        received_ms: wall clock.
        compress: label columns are compressed.
    """
    if kernels.ready() and (usual := _cut_compiled(batches, limit_bytes, received_ms, compress)) is not None:
        return usual
    gathered, partition = _gather(batches)
    ends = np.flatnonzero(np.diff(partition, append=-1)) + 1
    found = []
    start = 0
    for end in ends.tolist():
        number = int(partition[start])
        for at, to in _parts(gathered, start, end, limit_bytes):
            record = _frame(gathered, at, to, received_ms).encode(compress)
            found.append(Cut(number, record, _batches(gathered, at, to)))
        start = end
    return found


def _cut_compiled(
    batches: Sequence[Batch], limit_bytes: int, received_ms: int, compress: bool
) -> list[Cut] | None:
    """The same by the compiled loops, of usual batches; else None."""
    if not all(b.is_even for b in batches):
        return None
    numbers = [i for i, b in enumerate(batches) if len(b.ids)]
    if not numbers:
        return []
    one = SERIES_BYTES + SAMPLE_BYTES
    columns = [(b.ids, b.partition, b.kind, b.timestamp_ms, b.value) for b in (batches[i] for i in numbers)]
    written = write(columns, (limit_bytes - FRAME_HEAD_BYTES) // one, received_ms)
    if written is None:
        return None
    labels = _labels_of(written, [batches[i] for i in numbers])
    found = []
    buffer = written.buffer.data
    for p, (frame, samples) in enumerate(
        zip(written.frame.tolist(), written.samples.T.tolist(), strict=True)
    ):
        whose = [i for i, n in zip(numbers, samples, strict=True) if n]
        if not whose:
            continue
        record: bytes | memoryview = buffer[frame[0] : frame[4]]
        if (mine := labels.get(p)) is not None:
            if mine.size + sum(samples) * one + FRAME_HEAD_BYTES > limit_bytes:
                return None
            record = _with_labels(buffer, frame, mine, compress)
        found.append(Cut(p, record, frozenset(whose)))
    return found


class _Labels(NamedTuple):
    """Label blocks of a frame, and their offsets as a SeriesColumn has them."""

    blocks: list[bytes]
    offset: NDArray[np.uint32]

    @property
    def size(self) -> int:
        return int(self.offset[-1])


def _labels_of(written: Written, batches: list[Batch]) -> dict[int, _Labels]:
    """The labels that go along, by the partition of their frame."""
    blocks = [block for b in batches for block in b.blocks]
    if not blocks:
        return {}
    start = accumulate([len(b.ids) for b in batches], initial=0)
    labelled = np.concatenate([b.labelled + at for b, at in zip(batches, start, strict=False)])
    partition, place = written.partition[labelled], written.place[labelled]
    order = np.lexsort((place, partition))
    found = {}
    for p, mine in groupby(order.tolist(), partition.tolist().__getitem__):
        numbers = list(mine)
        offset = np.zeros(written.samples[:, p].sum() + 1, np.uint32)
        offset[place[numbers] + 1] = [len(blocks[i]) for i in numbers]
        found[p] = _Labels([blocks[i] for i in numbers], np.cumsum(offset, dtype=np.uint32))
    return found


def _with_labels(buffer: memoryview, frame: list[int], labels: _Labels, compress: bool) -> bytes:
    """A frame that was written without labels, with them."""
    _, ids, kinds, rest, end = frame
    fields: list[Any] = [buffer[ids:kinds], *fields_of((2, labels.offset))]
    joined = b"".join(labels.blocks)
    if compress:
        fields += [buffer[kinds:rest], *fields_of((5, compress_labels(joined)))]
    else:
        fields += [*fields_of((3, joined)), buffer[kinds:rest]]
    size = sum(f.nbytes if isinstance(f, np.ndarray) else len(f) for f in fields)
    return b"".join([SampleFrame.head(size), *fields, buffer[rest:end]])


def _gather(batches: Sequence[Batch]) -> tuple[_Gathered, NDArray[np.int64]]:
    """All batches as one, and the partition of each sample."""
    if len(batches) == 1:
        [only] = batches
        ids, kind, blocks, partition = only.ids, only.kind, only.blocks, only.partition
        labelled = only.labelled
        row, timestamp_ms, value = only.row.astype(np.intp), only.timestamp_ms, only.value
        batch = None
    else:
        sizes = [len(b.ids) for b in batches]
        offset = np.cumsum(sizes) - sizes
        ids = np.concatenate([b.ids for b in batches])
        kind = np.concatenate([b.kind for b in batches])
        blocks = [block for b in batches for block in b.blocks]
        labelled = np.concatenate([b.labelled + o for b, o in zip(batches, offset.tolist(), strict=True)])
        partition = np.concatenate([b.partition for b in batches])
        row = np.concatenate([b.row + o for b, o in zip(batches, offset.tolist(), strict=True)]).astype(
            np.intp
        )
        timestamp_ms = np.concatenate([b.timestamp_ms for b in batches])
        value = np.concatenate([b.value for b in batches])
        batch = np.repeat(np.arange(len(batches)), [len(b.row) for b in batches])
    block = np.full(len(ids), -1)
    block[labelled] = np.arange(len(blocks))
    row = _once(ids, row, block)
    each = np.arange(len(ids))
    if len(row) == len(ids) and (row == each).all():
        # As usual: one sample of each series. The series are ordered too, and a frame is a range of them.
        of_sample = partition
        order = np.argsort(of_sample, kind="stable")
        ids, kind, block = ids.take(order, axis=0), kind[order], block[order]
        row = each
    else:
        of_sample = partition[row]
        order = np.argsort(of_sample, kind="stable")
        row = row[order]
    block_bytes = np.zeros(len(ids), np.int64)
    if blocks:
        size = np.fromiter(map(len, blocks), np.int64, len(blocks))
        block_bytes[block >= 0] = size[block[block >= 0]]
    gathered = _Gathered(
        ids,
        kind,
        blocks,
        block,
        block_bytes,
        row,
        timestamp_ms[order],
        value[order],
        None if batch is None else batch[order],
    )
    return gathered, of_sample[order].astype(np.int64)


def _once(ids: Ids, row: NDArray[np.intp], block: NDArray[np.int64]) -> NDArray[np.intp]:
    """Rows such that the samples of one series all name the same one of its places.

    If any of its places has labels, that one has: `block` is changed.
    """
    if kernels.ready():
        if (places := ids_compiled.first_places(ids)) is None:
            return row
        np.maximum.at(block, places, block.copy())
        return places[row]
    low = np.ascontiguousarray(ids[:, 0])
    ordered = np.sort(low)
    if not (ordered[1:] == ordered[:-1]).any():
        return row
    # By both halves: 64 bits of two series may be alike, 128 are not.
    order = np.lexsort((np.arange(len(low)), ids[:, 1], low))
    by_id = ids[order]
    is_first = np.ones(len(low), bool)
    is_first[1:] = (by_id[1:] != by_id[:-1]).any(axis=1)
    first = np.empty(len(low), np.intp)
    first[order] = order[np.maximum.accumulate(np.where(is_first, np.arange(len(low)), 0))]
    np.maximum.at(block, first, block.copy())
    return first[row]


def _parts(g: _Gathered, start: int, end: int, limit_bytes: int) -> list[tuple[int, int]]:
    """Ranges of samples from `start` to `end` that each fit into a frame: halves until they do."""
    if end - start == 1 or _size(g, start, end, limit_bytes) <= limit_bytes:
        return [(start, end)]
    middle = (start + end) // 2
    return _parts(g, start, middle, limit_bytes) + _parts(g, middle, end, limit_bytes)


def _size(g: _Gathered, start: int, end: int, limit_bytes: int) -> int:
    """Bytes of a frame of these samples; an upper bound where that is within the limit."""
    row = g.row[start:end]
    if not g.blocks:
        return len(row) * (SERIES_BYTES + SAMPLE_BYTES) + FRAME_HEAD_BYTES
    upper = int(g.block_bytes[row].sum()) + len(row) * (SERIES_BYTES + SAMPLE_BYTES) + FRAME_HEAD_BYTES
    if upper <= limit_bytes:
        return upper
    distinct = np.unique(row)
    series = int(g.block_bytes[distinct].sum()) + len(distinct) * SERIES_BYTES
    return series + len(row) * SAMPLE_BYTES + FRAME_HEAD_BYTES


def _frame(g: _Gathered, start: int, end: int, received_ms: int) -> SampleFrame:
    row = g.row[start:end]
    series: slice | NDArray[np.intp]
    if (row[1:] > row[:-1]).all():
        first, last = int(row[0]), int(row[-1])
        series = slice(first, last + 1) if last - first + 1 == len(row) else row
        index = np.arange(len(row), dtype=np.uint32)
    else:
        series, inverse = np.unique(row, return_inverse=True)
        index = inverse.astype(np.uint32)
    kind = g.kind[series]
    offset = np.zeros(len(kind) + 1, np.uint32)
    labels = b""
    if blocks := g.blocks:
        np.cumsum(g.block_bytes[series], out=offset[1:])
        at = g.block[series]
        labels = b"".join([blocks[i] for i in at[at >= 0].tolist()])
    column = SeriesColumn(g.ids[series], offset, labels, kind)
    return SampleFrame(column, index, g.timestamp_ms[start:end], g.value[start:end], received_ms)


def _batches(g: _Gathered, start: int, end: int) -> frozenset[int]:
    """The batches whose samples these are, or a few more: they are in the order of their batches."""
    if g.batch is None:
        return frozenset((0,))
    return frozenset(range(int(g.batch[start]), int(g.batch[end - 1]) + 1))
