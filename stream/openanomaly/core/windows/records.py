"""Changelog records of a partition: their kinds and keys; what closings become, and back.

Row state is in state_pages.py.
"""

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.fields import MOST_BYTES, column, parse, version_of
from openanomaly.core.windows.block import Block, Closing
from openanomaly.core.windows.rows import RING_PAGE, Rows
from openanomaly.errors import MalformedFrameError, UnknownVersionError
from openanomaly.pb.openanomaly.v1 import changelog_pb2 as pb

VERSION = 2
"""Of pages of `state`: 1 of a whole one, 2 of a part. A release that knew no parts would take one for a
page and begin the other rows anew, so it must not read it."""
STEP_VERSION = 1
"""Of all other records."""
COLUMN, PATCH, CATALOGUE, HOT, COLD, MOVE, RING_ANEW, STATE_ANEW = 1, 2, 3, 4, 5, 6, 7, 8
"""Kinds of record. COLUMN, PATCH and RING_ANEW go to the `ring` changelog, the others to `state`."""
_READ_UP_TO = {
    COLUMN: ("Column", STEP_VERSION),
    PATCH: ("Patch", STEP_VERSION),
    CATALOGUE: ("CataloguePage", VERSION),
    HOT: ("StatePage", VERSION),
    COLD: ("StatePage", VERSION),
    MOVE: ("Move", STEP_VERSION),
    RING_ANEW: ("Patch", STEP_VERSION),
    STATE_ANEW: ("Patch", STEP_VERSION),
}
_KEY = struct.Struct("<BQII")
_PATCH_ROWS = 16_384
HEAD_BYTES = 512
"""More than a record has besides its columns."""
_COLUMN_HEAD = 32


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


def check_version(kind: int, record: bytes) -> None:
    """Whether this release may read a record, without reading it.

    A page is read when all are there, and what is of a block that nobody asks for never: that somebody
    newer was here is said at once.

    Raises:
        UnknownVersionError: a newer release wrote it.
    """
    known = _READ_UP_TO.get(kind)
    if known is None:
        raise UnknownVersionError(f"a record of kind {kind}, this release knows {sorted(_READ_UP_TO)}")
    name, ours = known
    if (version := version_of(record)) > ours:
        raise UnknownVersionError(f"{name} has version {version}, this release reads up to {ours}")


def move_record(source: str, *, is_complete: bool) -> Record:
    """That the state of a partition is being moved here, or has been: see `openanomaly migrate`."""
    value = pb.Move(version=STEP_VERSION, source=source, is_complete=is_complete).SerializeToString()
    return Record(key(MOVE, 0, 0), value)


def restore_move(record: bytes) -> str | None:
    """From where the state is still being moved; None if all of it is here."""
    m = parse(pb.Move, record, STEP_VERSION)
    return None if m.is_complete else m.source


def catalogue_records(block: Block) -> list[Record]:
    """The pages of the catalogue that changed since the last call."""
    return [
        Record(key(CATALOGUE, block.uid, page, slot), value)
        for page, slot, value in block.catalogue.records()
    ]


def anew_record(kind: int, block: Block) -> Record:
    """That all of a block before this record, in its changelog, is of another life of it."""
    value = pb.Patch(version=STEP_VERSION, block=block.uid).SerializeToString()
    return Record(key(kind, block.uid, 0), value)


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
            yield from _columns(block, mark, page, bucket, inside, used, closing.stored[at], scores, at)
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


def _columns(
    block: Block,
    mark: pb.Mark,
    page: int,
    bucket: int,
    inside: Rows,
    used: int,
    stored: NDArray[np.float32],
    scores: dict[int, NDArray[np.float32]],
    at: slice | NDArray[np.int64],
) -> Iterator[Record]:
    """The column, and behind it those scores that it has no room for."""
    moved = b""
    if inside.size < used:
        bits = np.zeros(used, bool)
        bits[inside] = True
        moved = np.packbits(bits).tobytes()
    value = _dense(inside, used, stored).tobytes()
    room = (MOST_BYTES - HEAD_BYTES - len(moved)) // (4 * used + _COLUMN_HEAD) - 1
    uids = list(scores)
    for i in range(0, max(len(uids), 1), room):
        record = pb.Column(
            version=STEP_VERSION,
            mark=mark,
            block=block.uid,
            page=page,
            bucket=bucket,
            moved=moved,
            value=value,
            score=[
                pb.ScoreColumn(scorer=uid, score=_dense(inside, used, scores[uid][at]).tobytes())
                for uid in uids[i : i + room]
            ],
        ).SerializeToString()
        yield Record(key(COLUMN, block.uid, page, bucket % block.ring.slots), record)
        moved = value = b""


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
    most = min(_PATCH_ROWS, (MOST_BYTES - HEAD_BYTES - _COLUMN_HEAD * len(scores)) // (20 + 4 * len(scores)))
    # Rows that close two steps together are sent in their order, whatever is between them.
    for i in range(0, at.size, most):
        part = at[i : i + most]
        value = pb.Patch(
            version=STEP_VERSION,
            mark=mark,
            block=block.uid,
            row=closing.rows[part].astype(np.uint32).tobytes(),
            bucket=closing.bucket[part].tobytes(),
            value=closing.stored[part].tobytes(),
            score=[pb.ScoreColumn(scorer=uid, score=score[part].tobytes()) for uid, score in scores.items()],
        ).SerializeToString()
        yield Record(key(PATCH, block.uid, 0), value)


def restore_column(block: Block, record: bytes) -> Position:
    m = parse(pb.Column, record, STEP_VERSION)
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
    m = parse(pb.Patch, record, STEP_VERSION)
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
