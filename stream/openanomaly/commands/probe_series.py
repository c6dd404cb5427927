"""A series with a spike that a pipeline must find, all of it in the past."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.series import Labels
from openanomaly.errors import ConfigError

NAME = "openanomaly_probe"
_LEAD = 8
"""Steps with a score before the spike."""
_SPIKE = 15.0
"""In units of the series' waves, whose range is 4."""
_MOST_STEPS = 50_000


@dataclass(frozen=True, slots=True)
class ProbeSeries:
    """Samples, one in the middle of each step, the last one in a step that is over.

    Attributes:
        timestamp_ms, value: (N,) int64 and float64.
        spike_ms: the end of the step with the spike: the timestamp of its score.
    """

    labels: Labels
    timestamp_ms: NDArray[np.int64]
    value: NDArray[np.float64]
    spike_ms: int


def probe_series(pipeline: Pipeline, labels: Labels, now_ms: int) -> ProbeSeries:
    """Warm-up, a spike, and normal steps until the episode is over: no alert is left firing.

    Raises:
        ConfigError: the pipeline wants more steps than are pushed.
    """
    score, step_ms = pipeline.score, pipeline.step_ms
    spike_at = score.warmup + _LEAD
    steps = spike_at + score.quiet + 2
    if steps > _MOST_STEPS:
        raise ConfigError(
            f"pipeline {pipeline.name} wants {steps} steps (score.warmup, score.quiet), limit {_MOST_STEPS}; "
            "choose another one with --pipeline"
        )
    step = np.arange(steps)
    noise = np.random.default_rng(1).uniform(-0.25, 0.25, steps)
    # The slow wave lets long means move: they must not speak for long after the spike.
    wave = np.sin(2 * np.pi * step / 24) + np.sin(2 * np.pi * step / 96) + noise
    level, unit = _range(score.data_range)
    least = max(score.min_deviation, score.min_relative_deviation * abs(level))
    height = max(_SPIKE * unit * max(score.scale), 2 * least)
    value = level + unit * wave
    value[spike_at] += -height if score.direction == "below" else height
    if pipeline.transform == "rate":
        value = np.cumsum(value * pipeline.step_s)
    start_ms = (now_ms // step_ms - steps) * step_ms
    return ProbeSeries(
        labels, start_ms + step * step_ms + step_ms // 2, value, start_ms + (spike_at + 1) * step_ms
    )


def _range(data_range: tuple[float, float] | None) -> tuple[float, float]:
    """A level and a unit so that waves and spike are values that the pipeline learns from."""
    low, high = data_range or (-math.inf, math.inf)
    if math.isfinite(low) and math.isfinite(high):
        return (low + high) / 2, (high - low) / 100
    if math.isfinite(low):
        return low + 100.0, 1.0
    return (high - 100.0 if math.isfinite(high) else 100.0), 1.0
