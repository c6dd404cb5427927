"""A batch through an engine that fails: who has a forecast, and how often the engine was asked."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dues import HORIZON, Echo, memory_for, spoiled_by
from openanomaly.core.services.attempt import Outcome, forecast
from openanomaly.errors import ForecastError

LEVELS = (0.1, 0.5, 0.9)


def contexts(rows: int, steps: int = 64) -> np.ndarray:
    return np.repeat(np.arange(100, 100 + rows, dtype=np.float32)[:, None], steps, axis=1)


def attempt(engine: Echo, rows: int, sizes: tuple[int, ...] = ()) -> Outcome:
    outcome = forecast(engine, contexts(rows), HORIZON, LEVELS, sizes)
    assert outcome.forecast.shape == (rows, HORIZON, 3)
    # A row has its own forecast, or none.
    expected = np.arange(100, 100 + rows, dtype=np.float32)[outcome.ok]
    assert (outcome.forecast[outcome.ok] == expected[:, None, None]).all()
    assert int((~outcome.ok).sum()) == sum(outcome.failed.values())
    return outcome


def test_a_batch_that_works_is_one_call() -> None:
    engine = Echo()
    outcome = attempt(engine, 100)
    assert outcome.ok.all()
    assert engine.calls == [(100, 64)]


@given(st.integers(1, 80), st.sets(st.integers(0, 79), max_size=5))
def test_a_row_that_spoils_a_batch_is_the_only_one_without_a_forecast(rows: int, bad: set[int]) -> None:
    bad = {i for i in bad if i < rows}
    engine = Echo(spoiled_by({100.0 + i for i in bad}))
    outcome = attempt(engine, rows)
    assert set(np.flatnonzero(~outcome.ok).tolist()) == bad
    assert outcome.failed["engine"] == len(bad)
    assert len(engine.calls) <= 2 + 2 * len(bad) * (1 + rows.bit_length())


def test_too_little_memory_makes_smaller_batches_that_all_succeed() -> None:
    engine = Echo(memory_for(20))
    outcome = attempt(engine, 150)
    assert outcome.ok.all()
    assert outcome.fits is not None
    assert 10 <= outcome.fits <= 20
    assert sum(shape[0] > 20 for shape in engine.calls) <= 4, "it does not try large ones again"


def test_pythons_own_memory_error_is_one() -> None:
    def rule(last: list[float]) -> None:
        if len(last) > 5:
            raise MemoryError("array of 9 GiB")

    outcome = attempt(Echo(rule), 16)
    assert outcome.ok.all()
    assert outcome.fits is not None


@pytest.mark.parametrize("error", [ForecastError("broken"), RuntimeError("broken"), KeyError("x")])
def test_an_engine_that_does_not_work_at_all_is_not_asked_for_every_row(error: Exception) -> None:
    def rule(last: list[float]) -> None:
        raise error

    engine = Echo(rule)
    outcome = attempt(engine, 1000)
    assert not outcome.ok.any()
    assert sum(outcome.failed.values()) == 1000
    assert len(engine.calls) < 20


def test_a_forecast_that_is_not_finite_is_none() -> None:
    class Holes(Echo):
        def predict(self, context: np.ndarray, horizon: int, quantiles: object) -> np.ndarray:
            out = super().predict(context, horizon, LEVELS).copy()
            out[1, 2, 0] = np.nan
            out[3, 0, 1] = np.inf
            return out

    outcome = attempt(Holes(), 5)
    assert outcome.ok.tolist() == [True, False, True, False, True]
    assert outcome.failed == {"nan": 2}


def test_a_forecast_of_another_shape_is_none() -> None:
    class Wrong(Echo):
        def predict(self, context: np.ndarray, horizon: int, quantiles: object) -> np.ndarray:
            return super().predict(context, horizon + 1, LEVELS)

    outcome = attempt(Wrong(), 4)
    assert outcome.failed == {"shape": 4}


@pytest.mark.parametrize(("rows", "shape"), [(1, 16), (16, 16), (17, 64), (64, 64)])
def test_batches_of_a_compiled_engine_have_few_sizes(rows: int, shape: int) -> None:
    engine = Echo()
    assert attempt(engine, rows, (16, 64)).ok.all()
    assert engine.calls == [(shape, 64)]
