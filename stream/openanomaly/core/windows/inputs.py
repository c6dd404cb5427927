"""Which input of a partition is next: as they come, or as the run that is repeated had them."""

from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

from openanomaly.core.windows.partition import Partition

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Item(Generic[T]):
    """A record that waits: its offset, and what the caller needs to take it."""

    offset: int
    value: T


@dataclass(frozen=True, slots=True)
class Tick:
    """A tick that waits until the samples before `through` are taken."""

    now_ms: int
    through: int


class Inputs(Generic[T]):
    """Samples, forecasts and the tick that wait for one partition."""

    def __init__(self) -> None:
        self.samples: deque[Item[T]] = deque()
        self.forecasts: deque[Item[T]] = deque()
        self._tick: Tick | None = None

    def offer_tick(self, now_ms: int, through: int) -> None:
        """A tick at `now_ms`, with the high-water mark of the samples read after that moment.

        One that still waits stays: under a backlog the newer one would never be reached.
        """
        if self._tick is None:
            self._tick = Tick(now_ms, through)

    def next(self, partition: Partition) -> tuple[str, Item[T] | Tick] | None:
        """("samples" | "forecasts" | "tick", what), or None while the next one is not there yet."""
        while (mark := partition.next_mark()) is not None:
            at = partition.position
            if at.forecasts < mark.forecasts:
                return self._pop_forecast()
            if at.samples < mark.samples:
                if self.samples:
                    return "samples", self.samples.popleft()
                return None  # forecasts beyond the mark wait: taken now, they would judge other steps
            partition.pass_mark()
            if mark.tick_ms > at.tick_ms:
                return "tick", Tick(mark.tick_ms, mark.samples)
        if self.forecasts:
            return self._pop_forecast()
        if self.samples:
            return "samples", self.samples.popleft()
        if self._tick is not None and partition.position.samples >= self._tick.through:
            tick, self._tick = self._tick, None
            return "tick", tick
        return None

    def _pop_forecast(self) -> tuple[str, Item[T]] | None:
        return ("forecasts", self.forecasts.popleft()) if self.forecasts else None
