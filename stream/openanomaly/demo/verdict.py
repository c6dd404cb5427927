"""Which faults were found, and which alarms were false: from scores alone, as the product wrote them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np
from numpy.typing import NDArray

from openanomaly.demo.faults import Fault
from openanomaly.demo.fleet import DAY, F64

ALERT = 1.0
QUIET = 24
"""Steps without an alarm that end an episode."""
AGAIN = 144
"""An alarm that stays counts again after so many steps."""
BEFORE = 3
"""Steps before a fault. If one of them alarms, the fault must score twice as high to be seen to begin."""
LATE = 2
"""Steps after its end by which a fault must be found at the latest."""
MAY_BE_OF = 12
"""Steps after what must not alarm within which an alarm is put down to it."""
ECHO = 48
"""Steps after a fault for which alarms of its series are its echo: no longer mean reaches further."""

RATE = 0.04 * 2.6
"""False alarms per series and day that may be expected of a series younger than 16 blocks."""


@dataclass(frozen=True, slots=True)
class Found:
    """What became of a fault.

    Attributes:
        after: steps from its start to the first alarm, 1 for its very first step; None if not found.
        peak: highest score while it could be found, NaN if there was none.
        was_alarming: the series alarmed just before.
    """

    fault: Fault
    after: int | None
    peak: float
    was_alarming: bool


@dataclass(frozen=True, slots=True)
class FalseAlarm:
    """The first step of an episode on a series that had nothing; `fault` if it had one that is none."""

    series: int
    step: int
    score: float
    fault: Fault | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of one round of faults.

    Attributes:
        limit: the most false alarms that pass.
        series_days: how much of normal life was judged.
        innocent: by the name of what must not alarm: the most series that chance explains.
    """

    found: list[Found]
    false_alarms: list[FalseAlarm]
    limit: int
    series_days: float
    innocent: dict[str, int]

    @property
    def missed(self) -> list[Found]:
        return [f for f in self.found if f.after is None]

    @property
    def passed(self) -> bool:
        return not self.missed and len(self.false_alarms) <= self.limit and not self.blamed

    @property
    def blamed(self) -> dict[str, int]:
        """By the name of what must not alarm: series that did, where they are more than chance explains."""
        alarmed = {(a.fault.kind.name, a.series) for a in self.false_alarms if a.fault is not None}
        count = Counter(name for name, _ in alarmed)
        return {name: count[name] for name, most in self.innocent.items() if count[name] > most}


def judge(scores: F64, first: int, faults: Sequence[Fault]) -> Verdict:
    """Judge (steps, S) scores from step `first` on, NaN where there is none."""
    found = [_find(scores, first, fault) for fault in faults if fault.kind.must_alarm]
    normal = np.isfinite(scores)
    for fault in faults:
        if fault.kind.must_alarm:
            normal[max(fault.start - first, 0) : fault.stop - first + ECHO, fault.series] = False
    alarms = []
    for step, series in np.argwhere(onsets(scores) & normal).tolist():
        score, of = float(scores[step, series]), _innocent(faults, series, first + step)
        alarms.append(FalseAlarm(series, first + step, score, of))
    series_days = float(normal.sum()) / DAY
    return Verdict(found, alarms, limit(series_days), series_days, _by_chance(faults))


def _by_chance(faults: Sequence[Fault]) -> dict[str, int]:
    """Alarms that are put down to each kind that must not alarm, and would be there without it."""
    steps: Counter[str] = Counter()
    for fault in faults:
        if not fault.kind.must_alarm:
            steps[fault.kind.name] += fault.stop - fault.start + MAY_BE_OF
    return {name: limit(count / DAY) for name, count in steps.items()}


def limit(series_days: float) -> int:
    """The most false alarms that pass: as many as may be expected, and twice their standard deviation."""
    expected = RATE * series_days
    return ceil(expected + 2 * sqrt(expected))


def onsets(scores: F64) -> NDArray[np.bool_]:
    """(steps, S) where an episode begins, and where one that does not end counts again."""
    out = np.zeros(scores.shape, bool)
    alarm = scores > ALERT
    for series in np.flatnonzero(alarm.any(axis=0)).tolist():
        last = counted = -AGAIN
        for step in np.flatnonzero(alarm[:, series]).tolist():
            if step - last > QUIET or step - counted >= AGAIN:
                out[step, series] = True
                counted = step
            last = step
    return out


def _find(scores: F64, first: int, fault: Fault) -> Found:
    start = fault.start - first
    before = scores[max(start - BEFORE, 0) : start, fault.series]
    during = scores[start : fault.stop - first + LATE, fault.series]
    highest = float(np.nanmax(before)) if np.isfinite(before).any() else 0.0
    was_alarming = highest > ALERT
    at = np.flatnonzero(during > (2 * highest if was_alarming else ALERT))
    after = int(at[0]) + 1 if at.size else None
    peak = float(np.nanmax(during)) if np.isfinite(during).any() else float("nan")
    return Found(fault, after, peak, was_alarming)


def _innocent(faults: Sequence[Fault], series: int, step: int) -> Fault | None:
    """The fault that must not alarm and may have made this one."""
    near = [f for f in faults if f.series == series and f.start <= step < f.stop + MAY_BE_OF]
    return near[0] if near else None
