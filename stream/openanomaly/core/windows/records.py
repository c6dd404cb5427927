"""Changelog records of a partition: what closings and row state become, and back."""

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.fields import column, parse
from openanomaly.core.series import varint
from openanomaly.core.windows.block import Block, Closing
from openanomaly.core.windows.catalogue import FREE
from openanomaly.core.windows.rows import RING_PAGE, STATE_PAGE, Rows
from openanomaly.errors import MalformedFrameError
from openanomaly.pb.openanomaly.v1 import changelog_pb2 as pb

VERSION = 1
_BITS = {1: "u1", 2: "u2", 4: "u4", 8: "u8"}
COLUMN, PATCH, CATALOGUE, HOT, COLD, MOVE = 1, 2, 3, 4, 5, 6
"""Kinds of record. COLUMN and PATCH go to the `ring` changelog, the others to `state`."""
_KEY = struct.Struct("<BQII")
_PATCH_ROWS = 16_384  # 20 bytes and 4 a scorer each: below the broker's message limit


class Record(NamedTuple):
    key: bytes
    value: bytes


class Position(NamedTuple):
    """How far a partition has consumed its inputs, in the order of consuming them."""

    samples: int
    forecasts: int
    tick_ms: int


def key(kind: int, block: int, page: int, slot: int = 0) -> bytes:
    return _KEY.pack(kind, block, page, slot)


def read_key(data: bytes) -> tuple[int, int, int, int]:
    """(kind, block, page, slot) of a record's key."""
    try:
        kind, block, page, slot = _KEY.unpack(data)
    except struct.error as exc:
        raise MalformedFrameError(f"changelog key of {len(data)} bytes, expected {_KEY.size}") from exc
    return kind, block, page, slot


def move_record(source: str, *, is_complete: bool) -> Record:
    """That the state of a partition is being moved here, or has been: see `openanomaly migrate`."""
    value = pb.Move(version=VERSION, source=source, is_complete=is_complete).SerializeToString()
    return Record(key(MOVE, 0, 0), value)


def restore_move(record: bytes) -> str | None:
    """From where the state is still being moved; None if all of it is here."""
    m = parse(pb.Move, record, VERSION)
    return None if m.is_complete else m.source


def ring_records(block: Block, closings: Iterable[Closing], position: Position) -> Iterator[Record]:
    """Columns for pages of which a good part closed one step together, patches for the rest."""
    mark = pb.Mark(samples=position.samples, forecasts=position.forecasts, tick_ms=position.tick_ms)
    for closing in closings:
        scores = {s.pipeline.uid: _spread(closing.rows, s.rows, s.judged.score) for s in closing.scored}
        rest = []
        for page, bucket, members in _groups(closing.rows, closing.bucket):
            at: slice | NDArray[np.int64] = members
            start = page * RING_PAGE
            used = min(RING_PAGE, block.rows - start)
            width = 4 * (1 + len(scores))
            if members.size * (12 + width) <= used * width + used // 8:
                rest.append(members)
                continue
            if members[-1] - members[0] + 1 == members.size:  # as usual: nothing needs to be gathered
                at = slice(int(members[0]), int(members[-1]) + 1)
            inside = closing.rows[at] - start
            yield _column(block, mark, page, bucket, inside, used, closing.stored[at], scores, at)
        if rest:
            yield from _patches(block, mark, closing, scores, np.concatenate(rest))


def _spread(rows: Rows, some: Rows, score: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scores of `some` rows as a column over `rows`, NaN for the others."""
    if some.size == rows.size:
        return score
    out = np.full(rows.size, np.nan, np.float32)
    out[np.searchsorted(rows, some)] = score
    return out


def _groups(rows: Rows, bucket: NDArray[np.int64]) -> Iterator[tuple[int, int, NDArray[np.int64]]]:
    """(ring page, bucket, positions) of rows that closed the same step."""
    page = rows // RING_PAGE
    order = np.lexsort((bucket, page)) if (bucket != bucket[0]).any() else np.arange(rows.size)
    p, b = page[order], bucket[order]
    edges = np.flatnonzero((np.diff(p) != 0) | (np.diff(b) != 0)) + 1
    for at in np.split(order, edges):
        yield int(page[at[0]]), int(bucket[at[0]]), at


def _column(
    block: Block,
    mark: pb.Mark,
    page: int,
    bucket: int,
    inside: Rows,
    used: int,
    stored: NDArray[np.float32],
    scores: dict[int, NDArray[np.float32]],
    at: slice | NDArray[np.int64],
) -> Record:
    moved = b""
    if inside.size < used:
        bits = np.zeros(used, bool)
        bits[inside] = True
        moved = np.packbits(bits).tobytes()
    value = pb.Column(
        version=VERSION,
        mark=mark,
        block=block.uid,
        page=page,
        bucket=bucket,
        moved=moved,
        value=_dense(inside, used, stored).tobytes(),
        score=[
            pb.ScoreColumn(scorer=uid, score=_dense(inside, used, score[at]).tobytes())
            for uid, score in scores.items()
        ],
    ).SerializeToString()
    return Record(key(COLUMN, block.uid, page, bucket % block.ring.slots), value)


def _dense(inside: Rows, used: int, values: NDArray[np.float32]) -> NDArray[np.float32]:
    if inside.size == used:
        return values
    out = np.full(used, np.nan, np.float32)
    out[inside] = values
    return out


def _patches(
    block: Block,
    mark: pb.Mark,
    closing: Closing,
    scores: dict[int, NDArray[np.float32]],
    at: NDArray[np.int64],
) -> Iterator[Record]:
    for i in range(0, at.size, _PATCH_ROWS):
        part = at[i : i + _PATCH_ROWS]
        value = pb.Patch(
            version=VERSION,
            mark=mark,
            block=block.uid,
            row=closing.rows[part].astype(np.uint32).tobytes(),
            bucket=closing.bucket[part].tobytes(),
            value=closing.stored[part].tobytes(),
            score=[pb.ScoreColumn(scorer=uid, score=score[part].tobytes()) for uid, score in scores.items()],
        ).SerializeToString()
        yield Record(key(PATCH, block.uid, 0), value)


def restore_column(block: Block, record: bytes) -> Position:
    m = parse(pb.Column, record, VERSION)
    value = column(m.value, "<f4", "values")
    rows = np.arange(value.size)
    if m.moved:
        rows = np.flatnonzero(np.unpackbits(np.frombuffer(m.moved, "u1"), count=value.size))
        value = value[rows]
    if value.size > RING_PAGE:
        raise MalformedFrameError(f"column of {value.size} rows, {RING_PAGE} at most")
    start = m.page * RING_PAGE
    block.ring.grow(start + RING_PAGE)
    block.ring.put(rows + start, np.full(rows.size, m.bucket), value)
    return _position(m.mark)


def restore_patch(block: Block, record: bytes) -> Position:
    m = parse(pb.Patch, record, VERSION)
    rows = column(m.row, "<u4", "rows").astype(np.int64)
    if rows.size:
        block.ring.grow(int(rows.max()) + 1)
        bucket = column(m.bucket, "<i8", "buckets", rows.size)
        value = column(m.value, "<f4", "values", rows.size)
        # Positions of one closing ascend by page and bucket, not by row.
        order = np.argsort(rows, kind="stable")
        block.ring.put(rows[order], bucket[order], value[order])
    return _position(m.mark)


def _position(mark: pb.Mark) -> Position:
    return Position(mark.samples, mark.forecasts, mark.tick_ms)


def state_records(
    block: Block, position: Position, sequence: int, ahead: Sequence[Position] = ()
) -> Iterator[Record]:
    """The row state of every page that changed since the last call, as it is now.

    `ahead` are the positions of pages that a torn checkpoint left beyond `position`.
    """
    pages = np.flatnonzero(block.touched)
    hot = [_StateColumn.of(block, 7, *c) for c in state_columns(block, hot=True)]
    cold = [_StateColumn.of(block, 8, *c) for c in state_columns(block, hot=False)]
    for page in pages.tolist():
        start, stop = page * STATE_PAGE, min((page + 1) * STATE_PAGE, block.rows)
        is_cold = bool(block.touched_cold[page])
        at = max(position, ahead[page]) if page < len(ahead) else position
        head = pb.StatePage(
            version=VERSION,
            mark=pb.Mark(samples=at.samples, forecasts=at.forecasts, tick_ms=at.tick_ms),
            block=block.uid,
            page=page,
            sequence=sequence,
            generation=block.catalogue.generation[start:stop].tobytes(),
        ).SerializeToString()
        # Nearly all of the record, and so written by hand: messages would copy each column twice.
        pieces: list[Any] = [head]
        for c in hot + cold if is_cold else hot:
            c.write(pieces, page, start, stop)
        yield Record(key(COLD if is_cold else HOT, block.uid, page), b"".join(pieces))
    block.touched[:] = False
    block.touched_cold[:] = False


class _StateColumn(NamedTuple):
    """A column of row state, rows last, and the pages of which all rows have one value.

    Buckets, and the counter values of gauges: often the same in a whole page, and then written once.
    """

    field: int
    head: bytes
    array: NDArray[Any]
    uniform: frozenset[int]

    @classmethod
    def of(cls, block: Block, field: int, owner: int, name: str, array: NDArray[Any]) -> "_StateColumn":
        head = pb.StateColumn(owner=owner, name=name, dtype=array.dtype.str).SerializeToString()
        whole = block.rows // STATE_PAGE  # a last page that is not full is written as it is
        if array.ndim > 1 or not whole:
            return cls(field, head, array.T, frozenset())
        bits = array.view(_BITS[array.itemsize])[: whole * STATE_PAGE].reshape(whole, STATE_PAGE)
        maybe = np.flatnonzero((bits[:, 0] == bits[:, 1]) & (bits[:, 0] == bits[:, -1]))
        is_uniform = (bits[maybe] == bits[maybe, :1]).all(axis=1)
        return cls(field, head, array, frozenset(maybe[is_uniform].tolist()))

    def write(self, pieces: list[Any], page: int, start: int, stop: int) -> None:
        """Append the page's column as a field of a StatePage."""
        values = self.array[..., start : start + 1 if page in self.uniform else stop]
        size = varint(values.nbytes)
        inner = len(self.head) + 1 + len(size) + values.nbytes
        pieces.append(b"".join((bytes((self.field << 3 | 2,)), varint(inner), self.head, b"\x22", size)))
        # Place by place: each is a run of memory.
        pieces.extend(values.reshape(-1, values.shape[-1]) if values.ndim > 1 else (values,))


def state_columns(block: Block, hot: bool) -> Iterator[tuple[int, str, NDArray[Any]]]:
    """(owner, name, array) of every column of row state."""
    if hot:
        for c in block.state.columns:
            yield 0, c.name, block.state[c.name]
    for scoring in block.scorings:
        for f in scoring.scorer.fields:
            if f.hot == hot:
                yield scoring.pipeline.uid, f.name, scoring.state[f.name]


def restore_state(block: Block, message: pb.StatePage, columns: Iterable[pb.StateColumn]) -> None:
    """Take over columns of a state page for the rows whose owner is still the same.

    A column that this release does not have is left, one that it has and the page lacks stays fresh.
    """
    start = message.page * STATE_PAGE
    generation = column(message.generation, "<u4", "generations")
    if len(generation) > STATE_PAGE:
        raise MalformedFrameError(f"state page of {len(generation)} rows, {STATE_PAGE} at most")
    count = min(len(generation), block.rows - start)
    if count <= 0:
        return
    owned = block.catalogue.born[start : start + count] != FREE
    same = np.flatnonzero(owned & (generation[:count] == block.catalogue.generation[start : start + count]))
    targets = {(o, n): a for hot in (True, False) for o, n, a in state_columns(block, hot)}
    for c in columns:
        target = targets.get((c.owner, c.name))
        if target is None or target.dtype.str != c.dtype:
            continue
        shape = target.shape[:0:-1]
        if not shape and len(c.values) == target.itemsize:
            target[start + same] = column(c.values, c.dtype, c.name, 1)
            continue
        width = int(np.prod(shape, dtype=np.int64))
        values = column(c.values, c.dtype, c.name, len(generation) * width)
        target[start + same] = values.reshape(*shape, len(generation))[..., same].T
