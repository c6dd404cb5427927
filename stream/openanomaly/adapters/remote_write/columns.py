"""What a decoded request is: columns of series and samples, and what was refused of it."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.series_column import SeriesKind
from openanomaly.errors import RequestTooLargeError

Metadata = tuple[bytes, SeriesKind]
"""Name of a metric family and what it is."""

_NAMED = 5
COUNT_LIMIT = 100_000
"""Time series or metadata of one request. Senders send 2,000 (Prometheus) to 10,000 (vmagent).

An empty time series is two bytes and, read whole to be refused, a kilobyte and some ten microseconds:
without a limit 64 MiB of them would hold the receiver for minutes and take 20 GiB.
"""


REFS_LIMIT_BYTES = 8 << 20
"""References to labels of one 2.0 request. Senders need 200 KiB (Prometheus) to 1 MiB (vmagent)."""
PARTS_LIMIT = 1_000_000
"""Samples, histograms and exemplars of one request that are read one by one: a second or a few."""


def check_count(count: int, what: str, limit: int = COUNT_LIMIT) -> None:
    """Refuse a request of too many parts before anything is made of them.

    Raises:
        RequestTooLargeError: it must be sent in smaller ones.
    """
    if count > limit:
        raise RequestTooLargeError(
            f"cannot take write request: {count} {what}, limit {limit}; send fewer at a time "
            "(Prometheus: queue_config.max_samples_per_send; vmagent: -remoteWrite.maxRowsPerBlock)"
        )


@dataclass(slots=True)
class Refused:
    """What of a request can never pass: counts, and the first few reasons with their series.

    `parts` counts what is read one by one, refused or not.
    """

    samples: int = 0
    histograms: int = 0
    exemplars: int = 0
    series: int = 0
    reasons: list[str] = field(default_factory=list)
    parts: int = 0

    def __bool__(self) -> bool:
        return self.series > 0

    def add(self, reason: str, samples: int = 0, histograms: int = 0, exemplars: int = 0) -> None:
        """Count one refused series, or one refused part of a series."""
        self.series += 1
        self.samples += samples
        self.histograms += histograms
        self.exemplars += exemplars
        if len(self.reasons) < _NAMED:
            self.reasons.append(reason[:1000])

    def take_parts(self, count: int) -> None:
        """Before so many parts of a series are read one by one.

        Raises:
            RequestTooLargeError: with those before they are too many.
        """
        self.parts += count
        check_count(self.parts, "samples, histograms and exemplars", PARTS_LIMIT)

    def __str__(self) -> str:
        text = "; ".join(self.reasons)
        more = self.series - len(self.reasons)
        return f"{text}; and {more} more" if more else text


class Slices:
    """Pieces of a body by number, cut out when they are asked for. One may be replaced."""

    def __init__(self, body: bytes | bytearray, start: NDArray[np.int64], stop: NDArray[np.int64]) -> None:
        self._body, self._start, self._stop = body, start, stop
        self._replaced: dict[int, bytes] = {}

    def __len__(self) -> int:
        return len(self._start)

    def __getitem__(self, i: int) -> bytes:
        if (other := self._replaced.get(i)) is not None:
            return other
        return bytes(self._body[self._start[i] : self._stop[i]])

    def __setitem__(self, i: int, piece: bytes) -> None:
        self._replaced[i] = piece


@dataclass(slots=True)
class WriteColumns:
    """The S series and N samples of one request, without what was refused.

    Attributes:
        slot: (S,) int32, who each series is: see core/identity.py.
        blocks: S label blocks as the sender wrote them; None where only the table has them (2.0).
        row: (N,) uint32, index into the series; ascending.
        timestamp_ms: (N,) int64.
        value: (N,) float64, bits as sent.
        kind: (S,) uint8 SeriesKind that came with the series (2.0), or None.
        metadata: metric families (1.0).
        histograms, exemplars: how many came with valid series.
    """

    slot: NDArray[np.int32]
    blocks: list[bytes] | Slices | None
    row: NDArray[np.uint32]
    timestamp_ms: NDArray[np.int64]
    value: NDArray[np.float64]
    kind: NDArray[np.uint8] | None = None
    metadata: list[Metadata] = field(default_factory=list)
    histograms: int = 0
    exemplars: int = 0
    refused: Refused = field(default_factory=Refused)


# By the number that both versions give a metric type; a gauge histogram, an info and a state set
# are no counters, which is all that matters here.
KINDS = np.array(
    [
        SeriesKind.UNKNOWN,
        SeriesKind.COUNTER,
        SeriesKind.GAUGE,
        SeriesKind.HISTOGRAM,
        SeriesKind.GAUGE,
        SeriesKind.SUMMARY,
        SeriesKind.GAUGE,
        SeriesKind.GAUGE,
    ],
    np.uint8,
)


def kind_of(metric_type: int) -> SeriesKind:
    """The kind of a metric type's number; UNKNOWN for one that the protocol does not have yet."""
    return SeriesKind(int(KINDS[metric_type])) if metric_type < len(KINDS) else SeriesKind.UNKNOWN
