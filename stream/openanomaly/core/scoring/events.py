"""How well alarms meet events that are known: recall of events, precision of alarms, false alarms a day."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

GAP = 12
"""Steps without an alarm that may be inside of one alarm."""
RENEW = 144
"""An alarm that stays on outside of events counts again after so many steps: not to end gains nothing."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was found in some series.

    Attributes:
        events: that fall into steps which have a score.
        good: runs of alarms with a step in an event.
        false: the others, and what long ones cost besides (`RENEW`).
        days: of steps with a score, outside of events.
        found_after: for each event that was found, in how many steps: 1 is its first one.
    """

    events: int = 0
    good: int = 0
    false: int = 0
    days: float = 0.0
    found_after: tuple[int, ...] = field(default=())

    @property
    def found(self) -> int:
        return len(self.found_after)

    @property
    def alarms(self) -> int:
        return self.good + self.false

    @property
    def recall(self) -> float:
        """Share of events that were found; NaN without events."""
        return self.found / self.events if self.events else float("nan")

    @property
    def precision(self) -> float:
        """Share of alarms that are good; NaN without alarms."""
        return self.good / self.alarms if self.alarms else float("nan")

    @property
    def f1(self) -> float:
        """Harmonic mean of both; 0 where nothing was found."""
        if not self.found or not self.good:
            return 0.0
        return 2 * self.recall * self.precision / (self.recall + self.precision)

    @property
    def false_a_day(self) -> float:
        """False alarms in a day of a series; NaN without a day."""
        return self.false / self.days if self.days else float("nan")

    @property
    def median_found_after(self) -> float:
        """Steps until half of the found events were found; NaN without."""
        return float(np.median(self.found_after)) if self.found_after else float("nan")


def total(outcomes: Iterable[Outcome]) -> Outcome:
    """Of several series together."""
    each = list(outcomes)
    return Outcome(
        sum(o.events for o in each),
        sum(o.good for o in each),
        sum(o.false for o in each),
        sum(o.days for o in each),
        tuple(steps for o in each for steps in o.found_after),
    )


def judge(
    start_ms: NDArray[np.int64],
    score: NDArray[np.float32],
    step_ms: int,
    events: Sequence[tuple[int, int]],
    threshold: float = 1.0,
) -> Outcome:
    """What the scores of one series say of its events.

    Args:
        start_ms: (N,) the starts of its steps, ascending.
        score: (N,) NaN where there is none. An alarm is a score above `threshold`.
        events: first and last moment of each. A step is in an event if any moment of it is.
    """
    scored = np.isfinite(score)
    start_ms, hit = start_ms[scored], score[scored] > threshold
    if not start_ms.size:
        return Outcome()
    runs = [
        (a, b)
        for first, last in events
        if (b := _last(start_ms, last)) >= (a := _first(start_ms, first, step_ms))
    ]
    inside = np.zeros(len(hit), bool)
    for a, b in runs:
        inside[a : b + 1] = True
    # Events that touch or overlap, as moments one step apart do, are one.
    runs = _runs(inside)
    after = [int(np.argmax(hit[a : b + 1])) + 1 for a, b in runs if hit[a : b + 1].any()]
    good = false = 0
    for a, b in _alarms(hit):
        outside = int((~inside[a : b + 1]).sum())
        if outside <= b - a:
            good += 1
            false += outside // RENEW
        else:
            false += 1 + (outside - 1) // RENEW
    days = float((~inside).sum()) * step_ms / 86_400_000
    return Outcome(len(runs), good, false, days, tuple(after))


def _first(start_ms: NDArray[np.int64], moment_ms: int, step_ms: int) -> int:
    """The first step that ends behind a moment."""
    return int(np.searchsorted(start_ms, moment_ms - step_ms, side="right"))


def _last(start_ms: NDArray[np.int64], moment_ms: int) -> int:
    """The last step that begins at a moment or before."""
    return int(np.searchsorted(start_ms, moment_ms, side="right")) - 1


def _runs(inside: NDArray[np.bool_]) -> list[tuple[int, int]]:
    edge = np.diff(inside.astype(np.int8), prepend=0, append=0)
    return list(
        zip(np.flatnonzero(edge == 1).tolist(), (np.flatnonzero(edge == -1) - 1).tolist(), strict=True)
    )


def _alarms(hit: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First and last step of each run of alarms."""
    at = np.flatnonzero(hit)
    if not at.size:
        return []
    edges = np.flatnonzero(np.diff(at) > GAP) + 1
    return [(int(part[0]), int(part[-1])) for part in np.split(at, edges)]
