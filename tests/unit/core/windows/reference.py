"""What becomes of one series, sample by sample, in plain Python: slow, and easy to believe."""

import math
import struct
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

STALE = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]
_LATEST_MS = 2**42 - 1


class Sample(NamedTuple):
    """One sample as it arrived, `received_ms` by the clock of the receiver."""

    timestamp_ms: int
    value: float
    received_ms: int = 0


class Tick(NamedTuple):
    now_ms: int


@dataclass
class Steps:
    """The steps of one series: (bucket, value) in the order in which they closed."""

    step_ms: int
    aggregate: str = "mean"
    is_counter: bool = False
    lateness_ms: int = 10_000
    closed: list[tuple[int, float]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    last_ms: int | None = None
    through: int | None = None
    bucket: int | None = None
    values: list[float] = field(default_factory=list)
    deadline_ms: int = 0
    raw: tuple[float, int] | None = None

    def take(self, events: Iterable[Sample | Tick]) -> "Steps":
        for event in events:
            if isinstance(event, Sample):
                self._sample(event)
            elif self.values and self.deadline_ms <= event.now_ms:
                self._close()
        return self

    def _sample(self, sample: Sample) -> None:
        t, value, received_ms = sample
        bucket = t // self.step_ms
        if not 0 <= t < _LATEST_MS:
            self.counts["timestamp"] += 1
        elif self.last_ms is not None and t <= self.last_ms:
            self.counts["duplicate" if t == self.last_ms else "out_of_order"] += 1
        elif self.through is not None and bucket <= self.through:
            self.counts["late"] += 1
        else:
            self.last_ms = t
            if self.values and bucket > self.bucket:
                self._close()
            self.bucket = bucket
            end = (bucket + 1) * self.step_ms
            self.deadline_ms = max(end, received_ms + end - t) + self.lateness_ms
            usable = self._usable(t, value)
            if usable is not None:
                self.values.append(usable)

    def _usable(self, t: int, value: float) -> float | None:
        if struct.pack("<d", value) == struct.pack("<d", STALE):
            self.counts["stale"] += 1
            return None
        if not math.isfinite(value):
            self.counts["not_finite"] += 1
            return None
        if self.is_counter:
            previous, self.raw = self.raw, (value, t)
            if previous is None:
                self.counts["counter_start"] += 1
                return None
            if value < previous[0]:
                self.counts["counter_reset"] += 1
                return None
            value = (value - previous[0]) / ((t - previous[1]) / 1000)
        self.counts["accepted"] += 1
        return value

    def _close(self) -> None:
        v = self.values
        value = {
            "mean": lambda: sum(v) / len(v),
            "sum": lambda: sum(v),
            "last": lambda: v[-1],
            "min": lambda: min(v),
            "max": lambda: max(v),
            "count": lambda: float(len(v)),
        }[self.aggregate]()
        self.closed.append((self.bucket, value))
        self.through = self.bucket
        self.values = []

    def window(self, length: int) -> list[float]:
        """The last `length` steps up to the newest that closed; NaN where there is none."""
        if not self.closed:
            return []
        have, end = dict(self.closed), self.closed[-1][0]
        return [have.get(b, math.nan) for b in range(end - length + 1, end + 1)]
