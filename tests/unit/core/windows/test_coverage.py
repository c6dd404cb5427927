"""How many values fall where their forecasts say."""

from collections import Counter

import numpy as np
import pytest

from openanomaly.core.scoring import LEVELS
from openanomaly.core.windows import coverage


def counted(y: list[float], quantiles: list[list[float]]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    coverage.count(counts, np.array(y), np.array(quantiles).reshape(-1, len(LEVELS)))
    return dict(counts)


def test_the_bands_are_those_of_the_levels() -> None:
    assert LEVELS == (0.05, 0.2, 0.5, 0.8, 0.95)
    assert set(coverage.BANDS) == {"0.9", "0.6"}


@pytest.mark.parametrize(
    ("y", "in_narrow", "in_wide"),
    [(0.0, 0, 0), (1.0, 0, 1), (2.0, 1, 1), (3.0, 1, 1), (4.0, 1, 1), (5.0, 0, 1), (5.1, 0, 0)],
)
def test_a_value_is_inside_of_a_band_or_on_its_edge(y: float, in_narrow: int, in_wide: int) -> None:
    found = counted([y], [[1, 2, 3, 4, 5]])
    assert found == {"told": 1, "inside 0.6": in_narrow, "inside 0.9": in_wide}


def test_steps_without_a_forecast_are_not_counted() -> None:
    none = [np.nan] * 5
    assert counted([3, 3, 9], [none, [1, 2, 3, 4, 5], none]) == {"told": 1, "inside 0.6": 1, "inside 0.9": 1}


def test_a_constant_that_is_forecast_as_one_is_inside() -> None:
    assert counted([7.0], [[7.0] * 5]) == {"told": 1, "inside 0.6": 1, "inside 0.9": 1}


def test_what_is_stated_is_observed_where_forecasts_are_right() -> None:
    """Normal values and the quantiles of the distribution that they are drawn from."""
    edges = [-1.6449, -0.8416, 0.0, 0.8416, 1.6449]
    y = np.random.default_rng(1).normal(size=20_000)
    found = counted(y.tolist(), [edges] * len(y))
    assert found["inside 0.9"] / found["told"] == pytest.approx(0.9, abs=0.01)
    assert found["inside 0.6"] / found["told"] == pytest.approx(0.6, abs=0.01)
