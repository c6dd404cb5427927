"""What scoring remembers of a series: fields of a structure of arrays, and their first values."""

from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

State = dict[str, NDArray[Any]]
Rows = NDArray[np.int64]

KEEP = 4
"""Block maxima held per list."""

LISTS = 10
"""Lists of block maxima: x, -x at three scales, error, surprise, -spread, run."""

EPISODE = ("left", "start", "peak", "reason")
"""Fields of the episode."""

NEVER = np.iinfo(np.int64).min


class Field(NamedTuple):
    """One column of state.

    Attributes:
        tail: shape behind the rows.
        hot: changes with every step; the others once per scoring block.
        first: value of a fresh row.
    """

    name: str
    dtype: str
    tail: tuple[int, ...]
    hot: bool
    first: Any

    @property
    def row_bytes(self) -> int:
        return int(np.dtype(self.dtype).itemsize * np.prod(self.tail, dtype=np.int64))


# Until two blocks are filed the first place of a list is +inf, which makes "the second largest,
# the open block included" come out as the largest (see `reference` in channels.py).
_EMPTY = np.array([np.inf] + [-np.inf] * (KEEP - 1), np.float32)

FIELDS = (
    # Maxima of the open block.
    Field("open", "<f4", (LISTS,), True, -np.inf),
    # Exponential means: x over 12 and 48 steps, normal score over 12, spread over 48.
    Field("mean", "<f4", (4,), True, 0.0),
    # The last value, and for how many steps it has not changed.
    Field("last", "<f4", (), True, np.nan),
    Field("run", "<f4", (), True, 0.0),
    # Steps judged, and those with a forecast.
    Field("age", "<i4", (), True, 0),
    Field("told", "<i4", (), True, 0),
    # The episode: quiet steps left until it ends (0: none), its first step, its peak and why.
    Field("left", "<i4", (), True, 0),
    Field("start", "<i8", (), True, NEVER),
    Field("peak", "<f4", (), True, 0.0),
    Field("reason", "|u1", (), True, 0),
    # Largest block maxima, and the numbers of their blocks modulo 2^16.
    Field("top", "<f4", (LISTS, KEEP), False, _EMPTY),
    Field("when", "<u2", (LISTS, KEEP), False, 0),
    # First bucket of the next block.
    Field("until", "<i8", (), False, NEVER),
    # What the float32 values are relative to.
    Field("origin", "<f8", (), False, 0.0),
)


def allocate(rows: int) -> State:
    """Columns of fresh rows, (rows, *tail) each.

    The row is the fastest axis in memory: a step reads one place of many rows, so each place is a
    dense run of them.
    """
    state = {}
    for f in FIELDS:
        axes = tuple(range(len(f.tail), -1, -1)) if f.tail else (0,)
        state[f.name] = np.empty((*reversed(f.tail), rows), f.dtype).transpose(axes)
        state[f.name][:] = f.first
    return state


def reset(state: State, rows: Rows, keep: Collection[str] = ()) -> None:
    """Make rows fresh again, but for the fields to `keep`."""
    for f in FIELDS:
        if f.name not in keep:
            state[f.name][rows] = f.first


def places(column: NDArray[Any]) -> NDArray[Any]:
    """A column with its rows last: (rows, lists, keep) -> (keep, lists, rows)."""
    return column.T
