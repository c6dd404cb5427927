"""Contexts that wait for a forecast, and which of them make the next batch."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.frames import DueFrame


@dataclass(slots=True)
class Request:
    """A due frame on its way: its rows may travel in several batches, in any order of outcome.

    Attributes:
        frame: what is asked.
        forecast: (N, H, Q) float32, filled row by row; NaN where there is none.
        answered: called once, when every row has its forecast or will have none.
    """

    frame: DueFrame
    answered: Callable[["Request"], None]
    forecast: NDArray[np.float32]
    open_rows: int = 0
    queued_s: float = 0.0
    ok: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self.open_rows = len(self.frame.row)
        self.ok = np.zeros(self.open_rows, bool)

    @classmethod
    def of(cls, frame: DueFrame, levels: int, answered: Callable[["Request"], None]) -> "Request":
        # Reserved, not written: pages cost memory only as forecasts come in.
        return cls(frame, answered, np.empty((len(frame.row), frame.horizon, levels), np.float32))

    def close(self, rows: int) -> None:
        """`rows` more rows are decided."""
        self.open_rows -= rows
        if self.open_rows == 0:
            self.answered(self)


@dataclass(frozen=True, slots=True)
class Part:
    """Rows `start` to `stop` of a request, in one batch."""

    request: Request
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Key:
    """What contexts must share to be in one batch."""

    model: str
    horizon: int
    length: int


@dataclass(frozen=True, slots=True)
class Cut:
    """The next batch, and what was left out because a fresher request has been made."""

    key: Key
    parts: list[Part]
    stale: list[Part]

    @property
    def rows(self) -> int:
        return sum(map(len, self.parts))


@dataclass(slots=True)
class _Group:
    parts: deque[Part] = field(default_factory=deque)
    rows: int = 0


class DueQueue:
    """First in, first out within a group; the group that has waited longest is served first."""

    def __init__(self, max_wait_s: float) -> None:
        self.rows = 0
        self._max_wait_s = max_wait_s
        self._groups: dict[Key, _Group] = {}

    def put(self, key: Key, request: Request, now_s: float) -> None:
        """Queue every row of a request."""
        request.queued_s = now_s
        group = self._groups.setdefault(key, _Group())
        rows = len(request.frame.row)
        group.parts.append(Part(request, 0, rows))
        group.rows += rows
        self.rows += rows

    def ready_in_s(self, now_s: float, size: Callable[[Key], int]) -> float | None:
        """Seconds until a batch should be cut, at most 0 for now; None while nothing waits."""
        waits = [
            0.0 if g.rows >= size(k) else g.parts[0].request.queued_s + self._max_wait_s - now_s
            for k, g in self._groups.items()
        ]
        return min(waits, default=None)

    def cut(self, now_s: float, now_ms: int, size: Callable[[Key], int]) -> Cut | None:
        """Take up to `size` rows of the group that is full or has waited long enough, oldest first."""
        ready = [
            (g.parts[0].request.queued_s, k)
            for k, g in self._groups.items()
            if g.rows >= size(k) or g.parts[0].request.queued_s + self._max_wait_s <= now_s
        ]
        if not ready:
            return None
        key = min(ready, key=lambda pair: pair[0])[1]
        return self._take(key, size(key), now_ms)

    def _take(self, key: Key, size: int, now_ms: int) -> Cut:
        group = self._groups[key]
        taken: list[Part] = []
        stale: list[Part] = []
        room = size
        while group.parts and room:
            part = group.parts.popleft()
            if part.request.frame.useful_until_ms <= now_ms:
                stale.append(part)
            elif len(part) > room:
                taken.append(Part(part.request, part.start, part.start + room))
                group.parts.appendleft(Part(part.request, part.start + room, part.stop))
                room = 0
            else:
                taken.append(part)
                room -= len(part)
        gone = sum(map(len, taken)) + sum(map(len, stale))
        group.rows -= gone
        self.rows -= gone
        if not group.parts:
            del self._groups[key]
        return Cut(key, taken, stale)
