"""Pages of the `state` changelog: row state and back."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.fields import MOST_BYTES, column
from openanomaly.core.series import varint
from openanomaly.core.windows.block import Block
from openanomaly.core.windows.catalogue import FREE
from openanomaly.core.windows.parts import Start
from openanomaly.core.windows.records import COLD, HEAD_BYTES, HOT, Position, Record, key
from openanomaly.core.windows.rows import PART, STATE_PAGE, part_slot
from openanomaly.errors import MalformedFrameError
from openanomaly.pb.openanomaly.v1 import changelog_pb2 as pb

_BITS = {1: "u1", 2: "u2", 4: "u4", 8: "u8"}


def state_records(
    block: Block,
    position: Position,
    sequence: int,
    ahead: Sequence[Position] = (),
    parts: tuple[Start, Start] | None = None,
) -> Iterator[Record]:
    """The row state of every page that changed since the last call, as it is now.

    `ahead` are the positions, by `PART` rows, that a torn checkpoint left beyond `position`; `parts` end and
    begin here.
    """
    before, after = (None, None) if parts is None else (pb.Mark(**start._asdict()) for start in parts)
    pages = np.flatnonzero(block.touched)
    hot = [_StateColumn.of(block, 7, *c) for c in state_columns(block, hot=True)]
    cold = [_StateColumn.of(block, 8, *c) for c in state_columns(block, hot=False)]
    for page in pages.tolist():
        is_cold = bool(block.touched_cold[page])
        columns = hot + cold if is_cold else hot
        for start, stop, slot, at in _page_parts(block, page, columns, position, ahead):
            head = pb.StatePage(
                version=2 if slot else 1,
                mark=pb.Mark(samples=at.samples, forecasts=at.forecasts, tick_ms=at.tick_ms),
                block=block.uid,
                page=page,
                sequence=sequence,
                generation=block.catalogue.generation[start:stop].tobytes(),
                first=start - page * STATE_PAGE,
                part_before=before,
                part=after,
            ).SerializeToString()
            # Nearly all of the record, and so written by hand: messages would copy each column twice.
            pieces: list[Any] = [head]
            for c in columns:
                c.write(pieces, page, start, stop)
            yield Record(key(COLD if is_cold else HOT, block.uid, page, slot), b"".join(pieces))
    block.touched[:] = False
    block.touched_cold[:] = False


def _page_parts(
    block: Block,
    page: int,
    columns: "Sequence[_StateColumn]",
    position: Position,
    ahead: Sequence[Position],
) -> Iterator[tuple[int, int, int, Position]]:
    """(first row, last + 1, slot of the key, position) of the records of a page; as a rule it is one."""
    start, stop = page * STATE_PAGE, min((page + 1) * STATE_PAGE, block.rows)
    known = [*ahead[start // PART : -(-stop // PART)]]
    if known:  # what is not known to be ahead is not
        known += [Position(0, 0, 0)] * (-(-(stop - start) // PART) - len(known))
    width = 4 + sum(c.width for c in columns)  # as if no column were the same in all rows
    most = (MOST_BYTES - HEAD_BYTES - sum(len(c.head) + 16 for c in columns)) // width
    if most >= stop - start and len(set(known)) <= 1:
        yield start, stop, 0, max([position, *known[:1]])
        return
    size = PART
    # Parts of which some are ahead of the others stay apart until the next checkpoint.
    while 2 * size <= min(most, STATE_PAGE // 2) and len(set(known)) <= 1:
        size *= 2
    for at in range(start, stop, size):
        part = ahead[at // PART : at // PART + 1]
        yield at, min(at + size, stop), part_slot(at - start, size), max([position, *part])


class _StateColumn(NamedTuple):
    """A column of row state, rows last, and the pages of which all rows have one value.

    Buckets, and the counter values of gauges: often the same in a whole page, and then written once.
    """

    field: int
    head: bytes
    array: NDArray[Any]
    uniform: frozenset[int]

    @property
    def width(self) -> int:
        """Bytes of a row."""
        return int(self.array.nbytes // self.array.shape[-1])

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


def parts_of(message: pb.StatePage) -> range:
    """The parts (`PART` rows each) that a state page, or a part of one, has."""
    first = message.page * STATE_PAGE + message.first
    return range(first // PART, -(-(first + len(message.generation) // 4) // PART))


def restore_state(
    block: Block, message: pb.StatePage, columns: Iterable[pb.StateColumn], parts: Sequence[bool]
) -> None:
    """Take over columns of a state page for the rows of `parts` whose owner is still the same.

    A column that this release does not have is left, one that it has and the page lacks stays fresh.
    """
    start = message.page * STATE_PAGE + message.first
    generation = column(message.generation, "<u4", "generations")
    if message.first % PART or message.first + len(generation) > STATE_PAGE:
        raise MalformedFrameError(
            f"state page of {len(generation)} rows from {message.first} on, {STATE_PAGE} at most"
        )
    count = min(len(generation), block.rows - start)
    if count <= 0:
        return
    owned = block.catalogue.born[start : start + count] != FREE
    wanted = np.repeat(np.array(parts, bool), PART)[:count]
    same = np.flatnonzero(
        wanted & owned & (generation[:count] == block.catalogue.generation[start : start + count])
    )
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
