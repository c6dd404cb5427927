"""What the statistical engine forecasts of series whose law is known."""

import numpy as np
import pytest
from numpy.typing import NDArray

from openanomaly.adapters.statistical import StatisticalAdapter
from openanomaly.core.scoring.levels import LEVELS

F32 = NDArray[np.float32]
H = 64
ENGINE = StatisticalAdapter()
RNG = np.random.default_rng(4)


def forecast(context: NDArray[np.float64], horizon: int = H) -> F32:
    """(B, H, Q) for (B, T) or (T,) contexts."""
    return ENGINE.predict(np.atleast_2d(context).astype(np.float32), horizon, LEVELS)


def noise(*shape: int, scale: float = 1.0) -> NDArray[np.float64]:
    return RNG.normal(0, scale, shape)


def waves(rows: int, steps: int, period: float) -> NDArray[np.float64]:
    phase = RNG.uniform(0, 2 * np.pi, (rows, 1))
    return np.sin(2 * np.pi * np.arange(steps) / period + phase)


@pytest.mark.parametrize("period", [2, 7, 24, 60, 144, 240])
def test_a_season_is_followed_over_the_whole_horizon(period: int) -> None:
    whole = waves(50, 512 + H, period) + noise(50, 512 + H, scale=0.1)
    median = forecast(whole[:, :512])[:, :, 2]
    assert np.abs(median - whole[:, 512:]).mean() < 0.2


def test_a_season_with_missing_steps_is_followed_too() -> None:
    whole = waves(50, 512 + H, 60) + noise(50, 512 + H, scale=0.1)
    context = whole[:, :512].copy()
    context[RNG.random(context.shape) < 0.3] = np.nan
    median = forecast(context)[:, :, 2]
    assert np.abs(median - whole[:, 512:]).mean() < 0.25


def test_a_season_shorter_than_the_horizon_repeats() -> None:
    whole = waves(10, 128 + 300, 12)
    assert np.abs(forecast(whole[:, :128], 300)[:, :, 2] - whole[:, 128:]).mean() < 0.1


def test_noise_has_no_season_and_its_quantiles() -> None:
    context = noise(300, 512)
    found = forecast(context)
    true = np.array([-1.645, -0.842, 0, 0.842, 1.645])
    assert np.abs(found.mean(axis=(0, 1)) - true).max() < 0.15
    assert found[:, :, 2].std() < 0.35


def test_a_random_walk_is_expected_where_it_is_with_a_band_that_widens() -> None:
    walk = noise(200, 512).cumsum(axis=1)
    found = forecast(walk)
    width = found[:, :, 4] - found[:, :, 0]
    assert np.abs(found[:, 0, 2] - walk[:, -1]).mean() < 1.0
    assert 3.0 < np.median(width[:, H - 1] / width[:, 0]) < 12.0, "about the root of 64"


def test_after_a_step_to_a_new_level_the_forecast_is_at_the_new_one() -> None:
    context = noise(100, 512, scale=0.1)
    context[:, 480:] += 5
    median = forecast(context)[:, :, 2]
    assert np.abs(median[:, 0] - 5).mean() < 0.5


def test_a_single_spike_moves_nothing() -> None:
    context = noise(100, 512)
    spiked = context.copy()
    spiked[np.arange(100), RNG.integers(50, 450, 100)] = 1e6
    assert np.abs(forecast(spiked)[:, :, 1:4] - forecast(context)[:, :, 1:4]).mean() < 0.3


def test_two_states_give_a_band_over_both() -> None:
    context = (RNG.random((100, 512)) < 0.3).astype(np.float64)
    found = forecast(context)
    assert found[:, :, 0].max() <= 0.2
    assert found[:, :, 4].min() >= 0.8


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8, 20])
def test_a_few_values_are_enough_for_a_forecast_near_them(steps: int) -> None:
    context = np.full((1, 64), np.nan)
    context[0, -steps:] = 10 + noise(steps, scale=0.1)
    found = forecast(context)
    assert found.min() > 9
    assert found.max() < 11


def test_a_small_signal_on_a_large_level_is_seen() -> None:
    whole = 60_000 + waves(20, 512 + H, 48)
    median = forecast(whole[:, :512])[:, :, 2]
    assert np.abs(median - whole[:, 512:]).mean() < 0.1


def test_a_saw_tooth_is_no_worse_than_the_last_value() -> None:
    whole = np.tile(np.arange(40.0), 16) + noise(1, 640, scale=0.2)
    context, future = whole[:, :576], whole[:, 576:]
    error = np.abs(forecast(context)[:, :, 2] - future).mean()
    assert error < 0.3 * np.abs(context[:, -1:] - future).mean()


def test_more_rows_than_are_computed_at_a_time() -> None:
    context = noise(300, 100)
    found = forecast(context, 5)
    for i in (0, 127, 128, 129, 255, 256, 299):
        assert found[i] == pytest.approx(forecast(context[i], 5)[0], rel=1e-4, abs=1e-4)


def test_threads_change_nothing_but_the_time() -> None:
    context = (waves(500, 200, 24) + noise(500, 200, scale=0.2)).astype(np.float32)
    found = StatisticalAdapter(threads=3).predict(context, H, LEVELS)
    assert (found == ENGINE.predict(context, H, LEVELS)).all()
