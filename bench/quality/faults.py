"""Graded faults injected into real telemetry: labelled by construction.

Each series gives a clean copy and one copy per fault that applies to it. A copy has STEPS steps; the
first WARM are history, the fault starts somewhere in the rest. Sizes are in units of the series' own
5-95 % range over the history: "0.5" is half of what it normally moves.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

STEPS, WARM, LATEST = 6000, 4000, 5500
FAULTS = [
    ("spike", 0.5),
    ("spike", 1.0),
    ("spike", 2.0),
    ("burst", 0.5),
    ("burst", 1.0),
    ("shift", 0.5),
    ("shift", 1.0),
    ("drift", 1.0),
    ("drift", 2.0),
    ("zero", 1.0),
    ("noise", 3.0),
    ("freeze", 1.0),
    ("half", 1.0),
]
SLACK = 12
GAP = 12


@dataclass(frozen=True)
class Copy:
    """One copy: of which series, with which fault, in which steps. CLEAN has none."""

    name: str
    frequency: str
    kind: str
    size: float
    start: int
    end: int


CLEAN = "clean"


def inject(
    x: NDArray[np.float64], kind: str, size: float, t: int, rng: np.random.Generator, unit: float
) -> tuple[NDArray[np.float64], int]:
    """A copy of `x` with the fault from `t` on, and the step behind it."""
    y = x.copy()
    sign = rng.choice([-1, 1]) if x[:WARM].min() < 0 else 1  # a series that is never negative stays so
    length = {"burst": 30, "shift": 300, "drift": 300, "zero": 30, "noise": 60, "freeze": 120, "half": 60}
    end = t + (int(rng.integers(1, 4)) if kind == "spike" else length[kind])
    if kind in ("spike", "burst", "shift"):
        y[t:end] += sign * size * unit
    elif kind == "drift":
        y[t:end] += sign * size * unit * np.linspace(0, 1, 300)
    elif kind == "zero":
        y[t:end] = 0
    elif kind == "noise":
        middle = np.median(x[t - 60 : t])
        y[t:end] = middle + (x[t:end] - middle) * size
    elif kind == "freeze":
        y[t:end] = y[t - 1]
    else:
        y[t:end] *= 0.5
    return y, end


def _applies(x: NDArray[np.float64], kind: str, unit: float) -> bool:
    history = x[:WARM]
    step = np.diff(history)
    if unit <= 0 or np.mean(step == 0) > 0.5:
        return False
    if kind in ("zero", "half"):
        return bool(np.quantile(history, 0.05) > 0.2 * unit)
    if kind == "freeze":
        return bool(np.mean(step == 0) < 0.02)
    return bool(np.std(step) > 0)


def make(
    series: Iterable[tuple[str, str, NDArray[np.float64]]], seed: int = 0
) -> tuple[NDArray[np.float64], list[Copy]]:
    """(copies, STEPS) values, and what each copy is."""
    rng = np.random.default_rng(seed)
    rows, copies = [], []
    for name, frequency, values in series:
        if len(values) < STEPS or not np.isfinite(values).all():
            continue
        first = int(rng.integers(0, len(values) - STEPS + 1))
        x = values[first : first + STEPS]
        low, high = np.quantile(x[:WARM], [0.05, 0.95])
        rows.append(x)
        copies.append(Copy(name, frequency, CLEAN, 0.0, -1, -1))
        for kind, size in FAULTS:
            t = int(rng.integers(WARM + 100, LATEST))
            if _applies(x, kind, high - low):
                y, end = inject(x, kind, size, t, rng, high - low)
                rows.append(y)
                copies.append(Copy(name, frequency, kind, size, t, end))
    return np.array(rows), copies


def alarms(high: NDArray[np.bool_]) -> int:
    """Alarms of one copy: steps within GAP of each other are one."""
    at = np.flatnonzero(high)
    return 0 if not at.size else 1 + int((np.diff(at) > GAP).sum())


def found(copies: list[Copy], high: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(copies,) steps from a fault's start to an alarm that the clean copy does not have, or -1."""
    clean = {c.name: row for c, row in zip(copies, high, strict=True) if c.kind == CLEAN}
    out = np.full(len(copies), -1)
    for i, c in enumerate(copies):
        if c.kind != CLEAN:
            part = slice(c.start, min(c.end + SLACK, STEPS))
            hit = np.flatnonzero(high[i, part] & ~clean[c.name][part])
            out[i] = hit[0] if hit.size else -1
    return out


def report(
    copies: list[Copy], score: NDArray[np.float32], budgets: tuple[float, ...] = (1.0, 0.5)
) -> dict[str, object]:
    """Share of the faults found at score 1, and at thresholds with so many alarms per 1,000 clean steps."""
    clean = np.array([c.kind == CLEAN for c in copies])
    quiet = score[clean, WARM:]

    def false_rate(threshold: float) -> float:
        return 1000 * sum(alarms(row > threshold) for row in quiet) / quiet.size

    levels = np.unique(
        np.quantile(quiet, np.concatenate([np.linspace(0.9, 0.999, 60), np.linspace(0.999, 1, 120)]))
    )
    rates = np.array([false_rate(t) for t in levels])
    thresholds = [1.0]
    for budget in budgets:
        above = np.flatnonzero(rates > budget)
        thresholds.append(
            float(levels[min(above[-1] + 1, len(levels) - 1)]) if above.size else float(levels[0])
        )
    hits = [found(copies, score > t) for t in thresholds]
    by_kind = {}
    for kind, size in FAULTS:
        of = np.array([c.kind == kind and c.size == size for c in copies])
        if of.any():
            by_kind[f"{kind} {size:g}"] = [round(float(np.mean(h[of] >= 0)), 3) for h in hits]
    mean = np.mean(list(by_kind.values()), axis=0)
    out: dict[str, object] = {
        "false_per_1000": round(false_rate(1.0), 3),
        "found": round(float(mean[0]), 3),
    }
    for budget, share in zip(budgets, mean[1:], strict=True):
        out[f"found_at_{budget:g}_per_1000"] = round(float(share), 3)
    out["by_kind"] = by_kind
    return out
