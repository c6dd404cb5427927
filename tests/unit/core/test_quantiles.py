"""Quantile levels of a model and those that are asked for."""

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openanomaly.core.quantiles import PATHS, at_levels, beyond, mixed

HAVE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def normal(levels: tuple[float, ...], mean: float = 3.0, sd: float = 2.0) -> np.ndarray:
    return np.array([NormalDist(mean, sd).inv_cdf(level) for level in levels], np.float32)


@pytest.mark.parametrize("want", [(0.05, 0.2, 0.5, 0.8, 0.95), (0.01, 0.99), (0.15,), (0.001, 0.55, 0.999)])
def test_a_normal_distribution_is_continued_exactly(want: tuple[float, ...]) -> None:
    found = at_levels(normal(HAVE)[None], HAVE, want)
    np.testing.assert_allclose(found[0], normal(want), rtol=1e-4)


def test_levels_that_are_there_are_taken_as_they_are() -> None:
    forecast = np.random.default_rng(1).normal(size=(4, 7, 9)).astype(np.float32).cumsum(axis=2)
    forecast.sort(axis=2)
    assert (at_levels(forecast, HAVE, (0.2, 0.5)) == forecast[..., [1, 4]]).all()


levels = st.lists(st.sampled_from([i / 40 for i in range(1, 40)]), min_size=1, max_size=6, unique=True)


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=9, max_size=9), levels)
def test_levels_ascend_whatever_crosses_and_none_depends_on_the_others(
    values: list[float], want: list[float]
) -> None:
    want = sorted(want)
    forecast = np.array([values], np.float32)
    found = at_levels(forecast, HAVE, want)[0]
    assert (np.diff(found) >= 0).all()
    size = max(1.0, float(np.abs(forecast).max()))
    for i, level in enumerate(want):
        assert abs(at_levels(forecast, HAVE, [level])[0, 0] - found[i]) <= 1e-5 * size


def test_what_is_extrapolated_is_told() -> None:
    assert beyond(HAVE, (0.05, 0.1, 0.5, 0.9, 0.95)) == [0.05, 0.95]
    assert beyond(HAVE, (0.1, 0.9)) == []


def test_paths_that_agree_are_what_each_of_them_is() -> None:
    one = normal(HAVE)[None, None, :, None]
    found = mixed(np.repeat(one, len(PATHS), axis=1), HAVE)
    np.testing.assert_allclose(found[0, 0], normal(HAVE), rtol=1e-5)


@pytest.mark.parametrize("levels", [HAVE, (0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)])
def test_paths_that_differ_give_the_spread_of_both(levels: tuple[float, ...]) -> None:
    """Normal paths around normal middles: variances add up, up to what nine paths leave out."""
    middles = normal(PATHS, 0.0, 2.0)
    ahead = np.stack([normal(levels, m, 1.0) for m in middles])[None, :, :, None].repeat(3, axis=3)
    found = mixed(ahead, levels)
    assert found.shape == (1, 3, len(levels))
    inner = [i for i, level in enumerate(levels) if 0.1 <= level <= 0.9]
    spread = float(np.sqrt(1 + np.var(middles)))
    expected = normal(tuple(levels[i] for i in inner), 0.0, spread)
    np.testing.assert_allclose(found[0, 1, inner], expected, rtol=0.1, atol=0.01)
