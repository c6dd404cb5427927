"""Contexts that wait for a forecast, and which of them make the next batch."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.frames import DueFrame
from openanomaly.core.services.shapes import PADDING_LIMIT, known_steps


@dataclass(slots=True)
class Request:
    """A due frame on its way: its rows may travel in several batches, in any order of outcome.

    Attributes:
        frame: what is asked.
        forecast: (N, H, Q) float32, filled row by row; defined where `ok`.
        known: (N,) steps from the first known one of each context to its end.
        answered: called once, when every row has its forecast or will have none.
    """

    frame: DueFrame
    answered: Callable[["Request"], None]
    forecast: NDArray[np.float32]
    known: NDArray[np.int64]
    open_rows: int = 0
    queued_s: float = 0.0
    ok: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self.open_rows = len(self.frame.row)
        self.ok = np.zeros(self.open_rows, bool)

    @classmethod
    def of(cls, frame: DueFrame, levels: int, answered: Callable[["Request"], None]) -> "Request":
        # Reserved, not written: pages cost memory only as forecasts come in.
        forecast = np.empty((len(frame.row), frame.horizon, levels), np.float32)
        return cls(frame, answered, forecast, known_steps(frame.context))

    def close(self, rows: int) -> None:
        """`rows` more rows are decided."""
        self.open_rows -= rows
        if self.open_rows == 0:
            self.answered(self)


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Some rows of a request, in one batch."""

    request: Request
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def split(self, rows: int) -> tuple["Part", "Part"]:
        """The first `rows` of it, and the others."""
        return Part(self.request, self.rows[:rows]), Part(self.request, self.rows[rows:])

    def over(self, least: float, length: int) -> NDArray[np.float64]:
        """(N,) known steps of each row of a batch of `length` beyond `least`, negative where fewer."""
        found: NDArray[np.float64] = np.minimum(self.request.known[self.rows], length) - least
        return found

    def known(self, length: int) -> int:
        """Steps of all contexts of a batch of `length`, from the first known one of each."""
        return int(np.minimum(self.request.known[self.rows], length).sum())

    def is_stale(self, now_ms: int) -> bool:
        """Whether a fresher request for these series has been made."""
        return self.request.frame.useful_until_ms <= now_ms


def stack(parts: Sequence[Part], length: int) -> NDArray[np.float32]:
    """(B, length) contexts of `parts`: the newest steps, missing before the first one."""
    out = np.full((sum(map(len, parts)), length), np.nan, np.float32)
    at = 0
    for part in parts:
        context = part.request.frame.context
        steps = min(length, context.length)
        out[at : at + len(part), length - steps :] = context.take(part.rows).last(steps)
        at += len(part)
    return out


@dataclass(frozen=True, slots=True)
class Key:
    """What contexts share that wait in one line.

    Contexts of one model and horizon may be in one batch whatever their length.
    """

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

    @property
    def known(self) -> int:
        """Steps of all contexts, from the first known one of each."""
        return sum(part.known(self.key.length) for part in self.parts)


@dataclass(slots=True)
class _Line:
    """Contexts of about one length, in the order of their arrival."""

    parts: deque[Part] = field(default_factory=deque)
    rows: int = 0

    def take(self, room: int, now_ms: int, stale: list[Part], at_most: int) -> list[Part]:
        """Up to `room` rows, oldest first, of so many parts; stale ones make room."""
        taken: list[Part] = []
        while self.parts and room and at_most:
            at_most -= 1
            part = self.parts.popleft()
            if part.is_stale(now_ms):
                stale.append(part)
                self.rows -= len(part)
                continue
            if len(part) > room:
                part, rest = part.split(room)
                self.parts.appendleft(rest)
            taken.append(part)
            room -= len(part)
            self.rows -= len(part)
        return taken


class DueQueue:
    """First in, first out within a line; the line that has waited longest is served first."""

    def __init__(self, max_wait_s: float) -> None:
        self.rows = 0
        self._max_wait_s = max_wait_s
        self._lines: dict[Key, _Line] = {}

    def put(self, key: Key, part: Part, now_s: float) -> None:
        """Queue rows of a request."""
        part.request.queued_s = now_s
        line = self._lines.setdefault(key, _Line())
        line.parts.append(part)
        line.rows += len(part)
        self.rows += len(part)

    def ready_in_s(self, now_s: float, size: Callable[[Key], int]) -> float | None:
        """Seconds until a batch should be cut, at most 0 for now; None while nothing waits."""
        waits = [
            0.0 if line.rows >= size(k) else self._ends_s(line) - now_s for k, line in self._lines.items()
        ]
        return min(waits, default=None)

    def cut(self, now_s: float, now_ms: int, size: Callable[[Key], int]) -> Cut | None:
        """Take up to `size` rows of the line that is full or has waited long enough, oldest first.

        One that is not full is filled up with shorter contexts, as long as what they leave empty
        stays within the limit.
        """
        ready = [
            (line.parts[0].request.queued_s, k)
            for k, line in self._lines.items()
            if line.rows >= size(k) or self._ends_s(line) <= now_s
        ]
        if not ready:
            return None
        key = min(ready, key=lambda pair: pair[0])[1]
        stale: list[Part] = []
        parts = self._take(key, size(key), now_ms, stale)
        if parts:
            self._fill(key, parts, size(key), now_ms, stale)
        return Cut(key, parts, stale)

    def _ends_s(self, line: _Line) -> float:
        """When its oldest context has waited for long enough."""
        return line.parts[0].request.queued_s + self._max_wait_s

    def _take(
        self, key: Key, room: int, now_ms: int, stale: list[Part], at_most: int = 1 << 30
    ) -> list[Part]:
        line = self._lines[key]
        before = line.rows
        taken = line.take(room, now_ms, stale, at_most)
        self.rows -= before - line.rows
        if not line.parts:
            del self._lines[key]
        return taken

    def _fill(self, key: Key, parts: list[Part], size: int, now_ms: int, stale: list[Part]) -> None:
        """Add shorter contexts of the same model and horizon to `parts`, the longest first."""
        shorter = [
            k
            for k in self._lines
            if k.model == key.model and k.horizon == key.horizon and k.length < key.length
        ]
        least = (1 - PADDING_LIMIT) * key.length  # known steps that a row must have, in the mean
        room = size - sum(map(len, parts))
        spare = sum(float(part.over(least, key.length).sum()) for part in parts)
        for other in sorted(shorter, key=lambda k: -k.length):
            while room > 0 and spare > 0 and (line := self._lines.get(other)) is not None:
                over = spare + np.cumsum(line.parts[0].over(least, key.length)[:room])
                fits = np.flatnonzero(over >= 0)
                rows = int(fits[-1]) + 1 if fits.size else 0
                if not rows and not line.parts[0].is_stale(now_ms):
                    break
                taken = self._take(other, max(rows, 1), now_ms, stale, at_most=1)
                parts += taken
                room -= sum(map(len, taken))
                spare += sum(float(part.over(least, key.length).sum()) for part in taken)
