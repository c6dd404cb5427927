"""A quarter of an hour in the life of a partition, with most of what can happen to it."""

from collections.abc import Sequence

import numpy as np

from openanomaly.core.pipelines.pipeline import Pipeline
from unit.core.windows import drive
from unit.core.windows.reference import STALE
from unit.core.windows.world import CheckpointNow, Event, EvictNow, Infer, Samples, TickNow

START_MS = 1_700_000_000_000
STEP_MS = 10_000
TTL_MS = 10 * STEP_MS


def pipelines() -> list[Pipeline]:
    """Two window specifications, and two pipelines on one of them."""
    return [
        drive.pipeline("all"),
        drive.pipeline("totals", selector='{__name__=~".+_total"}', forecast_every=3),
        drive.pipeline("slow", step_s=30, aggregate="max"),
    ]


def value(name: str, i: int, rng: np.random.Generator) -> float:
    if name.endswith("_total"):
        return float((i % 17) * 10 + rng.integers(0, 9))  # resets every 17 steps
    if name == "large":
        return 5e9 + float(rng.integers(0, 100))
    if name == "marked" and i % 7 == 0:
        return STALE
    return float(rng.normal(10, 3)) + (40 if i % 23 == 0 else 0)


def alive(name: str, i: int) -> bool:
    """`early` goes and is evicted; `newcomer` and `past` come later, and look for a row."""
    return {"early": i < 10, "newcomer": i >= 34, "past": i >= 30, "middle": i >= 8}.get(name, True)


def events(seed: int, steps: int = 45, jobs: Sequence[str] = ("",)) -> list[Event]:
    """What comes; series have one of the `jobs`, in turn."""
    rng = np.random.default_rng(seed)
    names = ["gauge", "requests_total", "large", "late", "marked", "early", "middle", "newcomer", "past"]
    job = {name: f"{name}@{jobs[i % len(jobs)]}" for i, name in enumerate(names)}
    out: list[Event] = []
    for i in range(steps):
        now_ms = START_MS + i * STEP_MS + 700
        rows: list[drive.Row] = []
        for name in names:
            if not alive(name, i) or rng.random() < 0.08:
                continue
            t = START_MS + i * STEP_MS + int(rng.integers(0, 600))
            t -= {"late": 90_000, "past": 7 * 86_400_000}.get(name, 0)
            rows.append((name, t, value(name, i, rng)))
            if rng.random() < 0.15:  # a second sample, of the next step
                rows.append((name, t + STEP_MS, value(name, i, rng)))
            if rng.random() < 0.1:  # a stray from before
                rows.append((name, t - int(rng.integers(0, 30_000)), 999.0))
        rng.shuffle(rows)
        cut = int(rng.integers(0, len(rows) + 1))
        for part in (rows[:cut], rows[cut:]):
            if part:
                out.append(Samples(drive.frame([(job[n], t, v) for n, t, v in part], now_ms).encode()))
            if rng.random() < 0.3:
                out.append(Infer(int(rng.integers(1, 4))))
        if rng.random() < 0.7:
            out.append(TickNow(now_ms + int(rng.integers(0, 25_000))))
        if i % 6 == 5 or rng.random() < 0.1:
            out.append(CheckpointNow(now_ms))
        if i % 8 == 7:
            out.append(EvictNow(now_ms, TTL_MS))
    out.append(Infer())
    out.append(TickNow(START_MS + (steps + 5) * STEP_MS))
    return out
