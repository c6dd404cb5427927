"""Series that were recorded: put together from pieces in any order, and the step that they are in."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.series import Labels
from openanomaly.errors import ConfigError

Scalar = TypeVar("Scalar", bound=np.generic)
Span = tuple[int, int]
"""First and last moment of something, both in it; Unix time in ms."""

_STEPS_S = (
    1, 2, 5, 10, 15, 20, 30, 60, 120, 180, 240, 300, 600, 900, 1200, 1800, 3600, 7200, 10800, 14400, 21600,
    28800, 43200, 86400,
)  # fmt: skip
_NEAR = 0.1
_MOST_S = 86400


@dataclass(frozen=True, slots=True)
class RecordedSeries:
    """One series from its first sample to its last.

    Attributes:
        labels: canonical, see core/series.py.
        timestamp_ms: (N,) int64, ascending, each once.
        value: (N,) float64; NaN for a sample without a value.
    """

    labels: Labels
    timestamp_ms: NDArray[np.int64]
    value: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Recording:
    """What was read.

    Attributes:
        events: what is known to be anomalous, of each series; None where nobody said.
        duplicates: samples left out because an earlier one had their time.
        unsorted: series whose samples were not in the order of time.
    """

    series: list[RecordedSeries]
    events: list[list[Span]] | None = None
    duplicates: int = 0
    unsorted: int = 0

    @property
    def samples(self) -> int:
        return sum(len(s.timestamp_ms) for s in self.series)


@dataclass(frozen=True, slots=True)
class Limit:
    """How much may be read, counted before samples of one time are left out.

    Attributes:
        group: settings that have `series_limit` and `samples_limit`, for people.
    """

    series: int
    samples: int
    group: str

    def check(self, series: int, samples: int) -> None:
        """
        Raises:
            ConfigError: it is too much.
        """
        for what, count, most in (("series", series, self.series), ("samples", samples, self.samples)):
            if count > most:
                raise ConfigError(f"{count:,} {what} or more, at most {self.group}.{what}_limit={most:,}")


@dataclass(slots=True)
class _Pieces:
    timestamp_ms: list[NDArray[np.int64]] = field(default_factory=list)
    value: list[NDArray[np.float64]] = field(default_factory=list)
    is_event: list[NDArray[np.bool_]] = field(default_factory=list)


class RecordingBuilder:
    """Takes pieces of series in any order."""

    def __init__(self, limit: Limit | None = None) -> None:
        self.limit = limit
        self._pieces: dict[Labels, _Pieces] = {}
        self._samples = 0
        self._has_events = False

    def add(
        self,
        labels: Labels,
        timestamp_ms: NDArray[np.int64],
        value: NDArray[np.float64],
        is_event: NDArray[np.bool_] | None = None,
    ) -> None:
        """Take samples of one series, (N,) each.

        Raises:
            ConfigError: there are more than the limit allows.
        """
        self._samples += len(value)
        if self.limit is not None:
            self.limit.check(len(self._pieces) + (labels not in self._pieces), self._samples)
        pieces = self._pieces.setdefault(labels, _Pieces())
        pieces.timestamp_ms.append(timestamp_ms)
        pieces.value.append(value)
        pieces.is_event.append(np.zeros(len(value), bool) if is_event is None else is_event)
        self._has_events |= is_event is not None

    def build(self) -> Recording:
        """The series in the order in which they came first; samples in that of time."""
        series: list[RecordedSeries] = []
        events: list[list[Span]] = []
        duplicates = unsorted = 0
        for labels in list(self._pieces):
            pieces = self._pieces.pop(labels)  # one at a time: a copy of all would be as large again
            time, value = _joined(pieces.timestamp_ms), _joined(pieces.value)
            is_event = _joined(pieces.is_event)
            if not (np.diff(time) > 0).all():
                order = np.argsort(time, kind="stable")
                unsorted += bool((np.diff(order) < 0).any())
                order = order[np.diff(time[order], prepend=-1) != 0]
                duplicates += len(time) - len(order)
                time, value, is_event = time[order], value[order], is_event[order]
            series.append(RecordedSeries(labels, time, value))
            events.append(_spans(time, is_event))
        return Recording(series, events if self._has_events else None, duplicates, unsorted)


def _joined(pieces: list[NDArray[Scalar]]) -> NDArray[Scalar]:
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def _spans(time: NDArray[np.int64], inside: NDArray[np.bool_]) -> list[Span]:
    """Runs of samples that are inside."""
    edge = np.diff(inside.astype(np.int8), prepend=0, append=0)
    first, last = np.flatnonzero(edge == 1), np.flatnonzero(edge == -1) - 1
    return list(zip(time[first].tolist(), time[last].tolist(), strict=True))


def infer_step_ms(series: Sequence[RecordedSeries]) -> int:
    """The usual spacing of samples: a round number of seconds where it is near one.

    Raises:
        ConfigError: no series has two samples, or they are further apart than a step can be.
    """
    spacing = [np.median(np.diff(s.timestamp_ms)) for s in series if len(s.timestamp_ms) > 1]
    if not spacing:
        raise ConfigError("no series has two samples: the step cannot be inferred; give --step")
    seconds = float(np.median(spacing)) / 1000
    near = min(_STEPS_S, key=lambda step: abs(step - seconds) / step)
    if abs(near - seconds) <= _NEAR * near:
        return near * 1000
    if seconds > _MOST_S:
        raise ConfigError(
            f"samples are {seconds:g} s apart, a step has at most {_MOST_S} s: give --step, "
            "and steps without a sample are missing"
        )
    return max(1, round(seconds)) * 1000
