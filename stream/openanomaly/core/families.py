"""What series are by their metric's name: counter, gauge, histogram or summary.

Metadata come apart from samples (1.0: by metric family, once a minute) or with them (2.0). Both end
in one bounded array by number of a metric name, so a frame's kinds are one lookup.
"""

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.series_column import SeriesKind

UNNAMED = 0
"""The number of names for which there was no room; nothing is known of them."""

# Which series a family consists of, besides those that bear its name.
_PARTS = {
    SeriesKind.COUNTER: (b"_total",),
    SeriesKind.HISTOGRAM: (b"_bucket", b"_count", b"_sum"),
    SeriesKind.SUMMARY: (b"_count", b"_sum"),
}


class Families:
    """Metric names and their kinds; at most `capacity` of them."""

    def __init__(self, capacity: int = 200_000) -> None:
        self._capacity = capacity
        self._number: dict[bytes, int] = {}
        self._kind = np.zeros(1024, np.uint8)

    def __len__(self) -> int:
        return len(self._number)

    def index_of(self, name: bytes) -> int:
        """The number of a metric name."""
        number = self._number.get(name)
        if number is not None:
            return number
        number = len(self._number) + 1
        if number > self._capacity:
            return UNNAMED
        if number == len(self._kind):
            self._kind = np.concatenate([self._kind, np.zeros_like(self._kind)])
        self._number[name] = number
        return number

    def learn(self, family: bytes, kind: SeriesKind) -> None:
        """A family's metadata: what its series are from now on."""
        if kind == SeriesKind.UNKNOWN:
            return
        for part in (b"", *_PARTS.get(kind, ())):
            if number := self.index_of(family + part):
                self._kind[number] = kind

    def learn_series(self, number: NDArray[np.int32], kind: NDArray[np.uint8]) -> None:
        """Metadata that came with series: (S,) numbers of their names, and kinds."""
        told = (kind != SeriesKind.UNKNOWN) & (number != UNNAMED)
        self._kind[number[told]] = kind[told]

    @property
    def kinds(self) -> NDArray[np.uint8]:
        """Kinds by number of name, and room for more."""
        return self._kind

    def kind(self, number: NDArray[np.int32]) -> NDArray[np.uint8]:
        """(S,) kinds by number of name."""
        return self._kind[number]
