"""Samples of a few series as a recording has them, and scores in a form that can be compared."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from openanomaly.core.frames import SampleFrame, ScoreFrame
from openanomaly.core.pipelines.pipeline import Pipeline, ScoreOptions
from openanomaly.core.series import encode_labels
from openanomaly.core.series_column import SeriesColumn

STEP_MS = 10_000
START_MS = 1_700_000_000_000 // STEP_MS * STEP_MS
Sample = tuple[str, int, float]
"""Name of its series, timestamp, value."""


def pipeline(**options: object) -> Pipeline:
    """One that scores soon, on short windows."""
    given: dict[str, object] = {
        "name": "p", "step_s": STEP_MS / 1000, "context": 64, "min_context": 4, "horizon": 8,
        "forecast_every": 4, "aggregate": "last", "group_by": (), "score": ScoreOptions(warmup=3, block=12),
    }  # fmt: skip
    return Pipeline(**{**given, **options})  # type: ignore[arg-type]


def waves(steps: int, names: Sequence[str] = ("a", "b", "c_total"), per_step: int = 2) -> list[Sample]:
    """Large waves in the order of time, and a counter (`_total`) that starts anew now and then."""
    rng = np.random.default_rng(7)
    out, counted = [], 0.0
    for i in range(steps * per_step):
        t = START_MS + i * STEP_MS // per_step
        for k, name in enumerate(names):
            value = 100_000 + np.sin(i / 9 + k) + 0.1 * rng.standard_normal()
            if name.endswith("_total"):
                counted = 0.0 if i % 53 == 52 else counted + abs(value - 99_999)
                value = counted
            out.append((name, t, float(value)))
    return out


def frame(samples: Sequence[Sample]) -> SampleFrame:
    """The samples in their order; each series once."""
    names = list(dict.fromkeys(name for name, _, _ in samples))
    place = {name: i for i, name in enumerate(names)}
    return SampleFrame(
        SeriesColumn.of([encode_labels((("__name__", name),)) for name in names]),
        np.array([place[name] for name, _, _ in samples], np.uint32),
        np.array([t for _, t, _ in samples], np.int64),
        np.array([v for _, _, v in samples], np.float64),
        0,
    )


def in_frames(samples: Sequence[Sample], size: int) -> Iterator[SampleFrame]:
    """The samples in frames of so many."""
    for i in range(0, len(samples), size):
        yield frame(samples[i : i + size])


def said(frames: Iterable[ScoreFrame]) -> dict[tuple[str, bytes, int], tuple[float | None, ...]]:
    """What is said of each step of each series and pipeline; None for NaN, so that equal is equal."""
    out: dict[tuple[str, bytes, int], tuple[float | None, ...]] = {}
    for f in frames:
        for i, row in enumerate(f.row.tolist()):
            key = f.pipeline, f.series.block(row), int(f.timestamp_ms[i])
            assert key not in out, f"{key} is scored twice"
            values = (f.score[i], f.value[i], *f.expected[i], f.reason[i], f.flags[i])
            out[key] = tuple(None if x != x else float(x) for x in values)
    return out
