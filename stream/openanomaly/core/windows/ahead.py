"""Rows that know more inputs than others, as a checkpoint leaves them of which some pages were written."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.windows.records import Position
from openanomaly.core.windows.rows import PART

_NOWHERE = Position(0, 0, 0)


class Ahead:
    """How far the row state of each block had consumed its inputs, by `PART` rows."""

    def __init__(self) -> None:
        self._positions: dict[int, list[Position]] = {}
        self._sequences: dict[tuple[int, int], int] = {}

    def take(self, block: int, parts: range, position: Position, sequence: int) -> list[bool]:
        """A page of row state is restored: of which of its parts it is the newest so far.

        Of one position the later checkpoint holds.
        """
        known = self._positions.setdefault(block, [])
        known.extend([_NOWHERE] * (parts.stop - len(known)))
        newest = [(known[part], self._sequences.get((block, part), 0)) for part in parts]
        newer = [(position, sequence) >= other for other in newest]
        for part, is_newer in zip(parts, newer, strict=True):
            if is_newer:
                known[part], self._sequences[block, part] = position, sequence
        return newer

    def restored(self) -> None:
        """Every page has been taken."""
        self._sequences.clear()

    def of(self, block: int) -> Sequence[Position]:
        """The positions of a block's parts; none where no input is known to any."""
        return self._positions.get(block, ())

    def forget(self, block: int) -> None:
        self._positions.pop(block, None)

    def behind(self, block: int, rows: int, position: Position) -> NDArray[np.bool_] | None:
        """By `PART` rows, whether an input at `position` is new to them; None where it is to all."""
        known = self._positions.get(block)
        if not known:
            return None
        behind = np.ones(rows // PART, bool)
        behind[: len(known)] = [
            (p.samples, p.tick_ms) < (position.samples, position.tick_ms) for p in known[: len(behind)]
        ]
        if behind.all():
            self.forget(block)  # positions only grow: it stays so
            return None
        return behind
