"""Named faults, in units of each series' own normal range, and the samples of a fleet that has them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from openanomaly.demo.fleet import DAY, F64, Fleet, Index, Kind

RESTARTED_JOB = "api"
_GAP = 3
"""Steps for which an instance is away while it restarts."""
_ROLL = 48
"""Steps in which all instances restart, one after another."""
QUIET_FIRST = 12
"""Steps of a round before its first fault."""
_NEXT = 6
"""Steps from the start of one fault to that of the next."""


@dataclass(frozen=True, slots=True)
class FaultKind:
    """What a fault does, and to which kinds of series.

    Attributes:
        size: in normal ranges of the series; 0 where the fault has no size.
        length: steps from its start to its end.
        must_alarm: whether somebody should be told of it.
    """

    name: str
    size: float
    length: int
    kinds: tuple[Kind, ...]
    must_alarm: bool = True


SPIKE = FaultKind("spike", 1.0, 1, (Kind.DAILY, Kind.COUNTER))
SHIFT = FaultKind("shift", 0.5, 48, (Kind.DAILY, Kind.COUNTER, Kind.NOISY))
DRIFT = FaultKind("drift", 1.0, 48, (Kind.DAILY, Kind.COUNTER, Kind.NOISY))
DROP = FaultKind("drop to zero", 0.0, 12, (Kind.DAILY, Kind.COUNTER))
FROZEN = FaultKind("frozen value", 0.0, 36, (Kind.DAILY, Kind.NOISY))
RESET = FaultKind("counter reset", 0.0, 1, (Kind.COUNTER,), must_alarm=False)
RESTART = FaultKind("rolling restart", 0.0, 0, tuple(Kind), must_alarm=False)
"""Every instance of a job is away for some steps, one after another; then counters begin at 0, memory
begins small. It has happened on every day of the history."""

ONE_SERIES = (SPIKE, SHIFT, DRIFT, DROP, FROZEN, RESET)
COPIES = 3


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: `series` has it from step `start` to before `stop`."""

    kind: FaultKind
    series: int
    start: int
    stop: int


class Samples(NamedTuple):
    """(steps, S) values as their exporters show them, and where there is a sample at all."""

    value: F64
    is_there: NDArray[np.bool_]


def deployments(fleet: Fleet, days: int, seed: int) -> list[Fault]:
    """A rolling restart on each of the first `days`, at some time of it."""
    random = np.random.default_rng([seed, days])
    return [f for d in range(days) for f in restart(fleet, d * DAY + int(random.integers(DAY - _ROLL)))]


def restart(fleet: Fleet, start: int) -> list[Fault]:
    """A rolling restart from step `start` on: a fault of each series of the job."""
    rows = [i for i, job in enumerate(fleet.job) if job == RESTARTED_JOB]
    instances = {name: k for k, name in enumerate(dict.fromkeys(fleet.instance[i] for i in rows))}
    begin = [start + _ROLL * instances[fleet.instance[i]] // len(instances) for i in rows]
    return [Fault(RESTART, i, at, at + _GAP) for i, at in zip(rows, begin, strict=True)]


def plan(fleet: Fleet, start: int, seed: int, had: Index) -> list[Fault]:
    """A round of faults from step `start` on, each on a series of its own, by the order of their starts.

    `had` (S,) counts the faults that each series had; those with the fewest are next, for what has
    happened twice is normal.
    """
    random = np.random.default_rng([seed, start])
    free = np.array([job != RESTARTED_JOB for job in fleet.job])
    out = []
    at = start + QUIET_FIRST
    for copy in range(COPIES):
        for kind in ONE_SERIES:
            may = np.flatnonzero(free & np.isin(fleet.kind, kind.kinds))
            series = int(random.choice(may[had[may] == had[may].min()]))
            free[series] = False
            had[series] += 1
            out.append(Fault(kind, series, at, at + kind.length))
            at += _NEXT
        if copy == 0:
            out += restart(fleet, at)
    return sorted(out, key=lambda f: f.start)


class World:
    """A fleet, the faults it has, and the samples that come of both.

    Attributes:
        low, high: (S,) the lowest and highest value (of a counter: rate) in all steps without faults.
    """

    def __init__(self, fleet: Fleet, step_s: float) -> None:
        self.fleet = fleet
        self.low = np.full(len(fleet), np.inf)
        self.high = np.full(len(fleet), -np.inf)
        self._step_s = step_s
        self._is_counter = fleet.kind == Kind.COUNTER
        self._total = np.zeros(len(fleet))
        self._held = np.zeros(len(fleet))

    @property
    def span(self) -> F64:
        """(S,) the width of each series' normal range."""
        out: F64 = self.high - self.low
        return out

    def take(self, steps: int, faults: Sequence[Fault] = ()) -> Samples:
        """The next steps of every series."""
        first = self.fleet.step
        now = [f for f in faults if f.start < first + steps and f.stop > first]
        out = Samples(np.empty((steps, len(self.fleet))), np.ones((steps, len(self.fleet)), bool))
        for k in range(steps):
            value = self.fleet.take(1)[0]
            has = [f for f in now if f.start <= first + k < f.stop]
            self._widen(value, np.array([f.series for f in has], np.int64))
            for fault in has:
                self._apply(fault, first + k, value, out.is_there[k])
            self._held[:] = value
            self._total += value * self._step_s
            out.value[k] = np.where(self._is_counter, self._total, value)
        return out

    def _widen(self, value: F64, faulty: Index) -> None:
        low, high = self.low[faulty], self.high[faulty]
        np.minimum(self.low, value, out=self.low)
        np.maximum(self.high, value, out=self.high)
        self.low[faulty], self.high[faulty] = low, high

    def _apply(self, fault: Fault, step: int, value: F64, is_there: NDArray[np.bool_]) -> None:
        i, kind = fault.series, fault.kind
        if kind in (SPIKE, SHIFT):
            value[i] += kind.size * self.span[i]
        elif kind is DRIFT:
            value[i] += kind.size * self.span[i] * (step - fault.start + 1) / kind.length
        elif kind is DROP:
            value[i] = 0.0
        elif kind is FROZEN:
            value[i] = self._held[i]
        elif kind is RESET:
            self._total[i] = 0.0
        elif kind is RESTART:
            is_there[i] = False
            self._total[i] = 0.0
            self.fleet.restart(np.array([i]))
