"""What a pipeline costs: memory from the columns that its series get, work from measured rates."""

from collections.abc import Sequence
from dataclasses import dataclass

from openanomaly.core.pipelines.models import BUILT_IN
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.windows.block import Block
from openanomaly.core.windows.plan import plan

FORECASTS_PER_CORE_S = 1_800.0
"""Contexts of 512 steps that the built-in model forecasts a second on one core (bench/inference.py)."""
FORECAST_CONTEXT = 512
STEPS_PER_CORE_S = 1_000_000.0
"""Steps a second through windows, scoring and changelog on one core, with the extra `fast`
(bench/windows.py)."""


@dataclass(frozen=True, slots=True)
class SeriesBytes:
    """Memory of one series of a pipeline in a window worker, its labels not included.

    Attributes:
        row_state: what windows and scoring remember between steps.
        ring: the steps kept.
        bands: the forecast in force.
        shared: of all of it, what the series has already where another pipeline watches it with the same
            windows or forecasts.
    """

    row_state: int
    ring: int
    bands: int
    shared: int

    @property
    def total(self) -> int:
        return self.row_state + self.ring + self.bands


def series_bytes(pipeline: Pipeline, others: Sequence[Pipeline] = ()) -> SeriesBytes:
    """The memory of a series of `pipeline`, beside `others`. Taken from columns, so it is what they are."""
    one = plan([pipeline.scored])[0]
    block = Block(one)
    bands = sum(b.columns.row_bytes for b in block.bands.values())
    shared = 0
    if any(other.window == pipeline.window for other in others):
        shared += block.state.row_bytes + block.ring.row_bytes
        if any(o.window == pipeline.window and o.forecaster == pipeline.forecaster for o in others):
            shared += bands
    return SeriesBytes(block.row_state_bytes, block.ring.row_bytes, bands, shared)


@dataclass(frozen=True, slots=True)
class Work:
    """What a number of series costs a second, each with a sample in every step.

    Attributes:
        forecasts_per_s: contexts that inference forecasts.
        inference_cores: share of a core for them; None where the model was not measured.
        window_cores: share of a core for windows and scores.
        samples_written_per_s: at most, where all scores are sent and not those of episodes alone.
    """

    forecasts_per_s: float
    inference_cores: float | None
    window_cores: float
    samples_written_per_s: float


def work(pipeline: Pipeline, series: int, outputs: int = 1) -> Work:
    """The work for `series` of a pipeline; `outputs` are the samples written of each score."""
    steps_per_s = series / pipeline.step_s
    forecasts = steps_per_s / pipeline.forecast_every
    is_measured = pipeline.model in ("auto", BUILT_IN) and pipeline.context <= FORECAST_CONTEXT
    return Work(
        forecasts,
        forecasts / FORECASTS_PER_CORE_S if is_measured else None,
        steps_per_s / STEPS_PER_CORE_S,
        steps_per_s * outputs,
    )
