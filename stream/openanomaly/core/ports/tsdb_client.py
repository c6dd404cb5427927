"""The port of time-series databases that are asked in PromQL and written by remote-write."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.frames import ScoreFrame


@dataclass(frozen=True, slots=True)
class Samples:
    """Samples of S series as columns of one length N: series after series, each in ascending time.

    Attributes:
        blocks: S canonical label blocks (core/series.py), each once; b"" is a series without labels, as of
            `sum(x)`. A series without samples may be among them.
        row: (N,) uint32, index into `blocks`; ascending.
        timestamp_ms: (N,) int64, Unix time; ascending within a series, no timestamp twice.
        value: (N,) float64, may be NaN or infinite. The staleness marker is one exact NaN (core/stale.py);
            databases leave it out of their answers, and a plain NaN stays a plain NaN.
        warnings: what the server said besides, such as that a part of its data was away.
    """

    blocks: list[bytes]
    row: NDArray[np.uint32]
    timestamp_ms: NDArray[np.int64]
    value: NDArray[np.float64]
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        """How many samples there are."""
        return len(self.row)

    def where(self, keep: NDArray[np.bool_]) -> "Samples":
        """Some of the samples; `keep` is (N,)."""
        row, timestamp_ms, value = self.row[keep], self.timestamp_ms[keep], self.value[keep]
        return Samples(self.blocks, row, timestamp_ms, value, self.warnings)

    @classmethod
    def none(cls) -> "Samples":
        return cls([], np.zeros(0, np.uint32), np.zeros(0, np.int64), np.zeros(0))


@dataclass(frozen=True, slots=True)
class Written:
    """What became of scores that were written.

    Attributes:
        scores: that the database has now, or at least one of whose outputs it has.
        samples: that it took; a score is one of each output.
        dropped: scores that are not in it, by reason: `silent` and `timestamp` (not for a database),
            `unknown` (no output of them has a value), `rejected` (it refused them for good).
        words: what the database said of those it refused; empty if none.
    """

    scores: int = 0
    samples: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    words: str = ""


class TSDBClient(Protocol):
    """One database. Blocking; may be called from several threads.

    Every method waits for the database within its time limit, tries again where that may help, and raises

    - TsdbUnavailableError: there was no usable answer; the same may pass later.
    - QueryRejectedError: the database refuses the query for good, in words that the message has.
    - AnswerTooLargeError (a QueryRejectedError): the answer is above a limit of ours, which it names.
    """

    shown: str
    """Its address, without secrets."""

    def range_query(self, query: str, start_ms: int, end_ms: int, step_ms: int) -> Samples:
        """What `query` gives at start, start + step, ... up to and including `end_ms`.

        A long range is asked for in parts; the answer is the one of the whole. All timestamps are points of
        the grid; a point without a value has no sample. None of them if `end_ms` is before `start_ms`.
        """
        ...

    def instant_query(self, query: str, at_ms: int) -> Samples:
        """What `query` (a vector or a scalar) gives at `at_ms`: at most one sample of each series."""
        ...

    def raw_query(self, selector: str, start_ms: int, end_ms: int) -> Samples:
        """The stored samples of the selected series with timestamps in [start_ms, end_ms], as they came."""
        ...

    def write(self, frames: Sequence[ScoreFrame]) -> Written:
        """Write scores with their timestamps, in their order; the series are those that the sink writes.

        Scores written twice with the same values are there once. After TsdbUnavailableError any part of
        them may have been written.
        """
        ...

    def close(self) -> None: ...
