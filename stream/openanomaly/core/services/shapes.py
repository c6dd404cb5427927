"""The shapes that batches are brought to: few, to reuse graphs, and close to what they hold.

Lengths have four steps an octave (at most 20 % of a context is padding), rows have eight (at most 11 %
of a batch of 16 rows or more).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.contexts import Contexts

SHORTEST = 64
"""Steps below which a context is not told apart: its cost is in the call."""
FEWEST = 16
"""The same for rows."""
PADDING_LIMIT = 0.25
"""Share of a batch that shorter contexts may leave empty when they fill one that is not full."""

_EXPONENT = np.uint16(0x7C00)
_SIGN = np.uint16(0x7FFF)


def lengths(longest: int) -> NDArray[np.int64]:
    """The lengths of contexts in use, ascending; the last one is `longest`."""
    return _ladder(min(SHORTEST, longest), longest, 4)


def batch_sizes(largest: int) -> Sequence[int]:
    """The rows of batches in use, ascending; the last one is `largest`."""
    found: Sequence[int] = _ladder(min(FEWEST, largest), largest, 8).tolist()
    return found


def known_steps(contexts: Contexts) -> NDArray[np.int64]:
    """(N,) steps from the first known one of each context to its end; 1 where none is known."""
    bits = contexts.packed.view(np.uint16) & _SIGN
    full = bits[:, 0] <= _EXPONENT
    out = np.full(len(bits), contexts.length, np.int64)
    if (rest := np.flatnonzero(~full)).size:
        known = bits[rest] <= _EXPONENT
        out[rest] = np.where(known.any(axis=1), contexts.length - known.argmax(axis=1), 1)
    return out


def _ladder(first: int, last: int, per_octave: int) -> NDArray[np.int64]:
    rungs: list[int] = []
    at, stride = first, max(1, first // per_octave)
    while at < last:
        rungs.append(at)
        at += stride
        if len(rungs) % per_octave == 0:
            stride *= 2
    return np.array([*rungs, last], np.int64)
