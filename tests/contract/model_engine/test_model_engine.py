"""What every ModelEngine must do. A new adapter joins ENGINES and passes, or is not one."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import checkpoints
from openanomaly.adapters.chronos import ChronosAdapter
from openanomaly.adapters.engines import built_in_checkpoint
from openanomaly.adapters.onnx import OnnxAdapter
from openanomaly.adapters.statistical import StatisticalAdapter
from openanomaly.core.ports.model_engine import ModelEngine, Precision, TellsMemory
from openanomaly.core.scoring.levels import LEVELS

F32 = NDArray[np.float32]
T, H = 128, 24


@dataclass(frozen=True)
class Kind:
    """How an engine is made, and what cannot be asked of it.

    Attributes:
        trained: its forecasts are meant to be good. Tiny checkpoints have random weights: they show
            that their family is called in the right way, not that it knows a season.
        drawn: a forecast is made of sample paths. A rounding error, which a batch of another size
            has, moves a draw that lies at the edge of a bin into the next one, and the path goes on
            from there: so a few values in a hundred may differ by more than rounding.
    """

    make: Callable[[], ModelEngine]
    trained: bool = True
    drawn: bool = False
    rounding: float = 1e-4


@dataclass(frozen=True)
class Place:
    """Where and how finely torch computes; a suffix of names."""

    device: str
    precision: Precision
    name: str


PLACES = [Place("cpu", "float32", "")]
if checkpoints.HAS_CUDA:
    PLACES += [Place("cuda", "float32", " on CUDA"), Place("cuda", "tf32", " on CUDA, TF32")]


def chronos(folder: Callable[[], str], place: Place) -> Callable[[], ModelEngine]:
    return lambda: ChronosAdapter(folder(), device=place.device, precision=place.precision, threads=1)


def built_in() -> str:
    return str(built_in_checkpoint())


ENGINES: dict[str, Kind] = {
    "statistical": Kind(StatisticalAdapter),
    "onnx: built-in": Kind(lambda: OnnxAdapter(built_in_checkpoint() / "model.onnx", threads=1)),
    **{
        f"chronos: {name}{place.name}": Kind(
            chronos(folder, place),
            trained=name == "built-in",
            drawn=name == "t5",
            rounding=2e-3 if place.precision == "tf32" else 1e-4,
        )
        for place in PLACES
        for name, folder in {"built-in": built_in, **checkpoints.TINY}.items()
    },
}


@pytest.fixture(scope="module", params=ENGINES)
def kind(request: pytest.FixtureRequest) -> Kind:
    return ENGINES[request.param]


@pytest.fixture(scope="module")
def engine(kind: Kind) -> ModelEngine:
    return kind.make()


@pytest.fixture(scope="module", params=[name for name, kind in ENGINES.items() if kind.trained])
def trained(request: pytest.FixtureRequest) -> ModelEngine:
    """An engine whose forecasts are meant to be good."""
    return ENGINES[request.param].make()


def wave(rows: int = 6, steps: int = T, seed: int = 1) -> F32:
    """Contexts with a season of 24 steps and noise, each at a level of its own."""
    rng = np.random.default_rng(seed)
    phase = np.linspace(0, 6, rows)[:, None]
    noise = rng.normal(0, 0.1, (rows, steps))
    return (10 * phase + np.sin(2 * np.pi * np.arange(steps) / 24 + phase) + noise).astype(np.float32)


def spread(context: F32) -> NDArray[np.float64]:
    """(B, 1, 1) the range of each row, never 0."""
    lowest, highest = np.nanmin(context, axis=1), np.nanmax(context, axis=1)
    size = (highest.astype(np.float64) - lowest).reshape(-1, 1, 1)
    return np.where(size > 0, size, 1.0)


def same(a: F32, b: F32, context: F32, share: float) -> bool:
    """Equal up to rounding: within this share of the range of the context."""
    return bool((np.abs(a.astype(np.float64) - b) <= share * spread(context)).all())


def test_an_engine_says_what_it_is(engine: ModelEngine) -> None:
    assert engine.name
    assert engine.max_context >= 64
    assert engine.horizon_step >= 1
    assert isinstance(engine.fixed_shapes, bool)


def test_an_engine_tells_of_its_devices_memory_if_that_is_its_own(engine: ModelEngine) -> None:
    """An engine need not know of memory, and one that computes on the processor has none to tell of."""
    engine.predict(wave(), H, LEVELS)
    memory = engine.device_memory() if isinstance(engine, TellsMemory) else None
    if engine.device == "cpu":
        assert memory is None
    elif memory is not None:
        assert 0 < memory.allocated <= memory.reserved <= memory.total - memory.free < memory.total


@pytest.mark.parametrize("rows", [1, 2, 300])
@pytest.mark.parametrize("steps", [1, 2, 7, 64, 513])
@pytest.mark.parametrize("horizon", [1, 5, 64])
def test_a_forecast_has_a_value_for_every_row_step_and_level(
    engine: ModelEngine, rows: int, steps: int, horizon: int
) -> None:
    found = engine.predict(wave(rows, steps), horizon, LEVELS)
    assert found.shape == (rows, horizon, len(LEVELS))
    assert found.dtype == np.float32
    assert np.isfinite(found).all()


@pytest.mark.parametrize("more", [0, 1])
def test_a_forecast_of_fewer_steps_than_a_pass_is_the_beginning_of_one(
    engine: ModelEngine, kind: Kind, more: int
) -> None:
    """A batch may have the horizons of several pipelines."""
    step = engine.horizon_step
    whole = engine.predict(wave(), (1 + more) * step, LEVELS)
    for part in {1, step // 2 + 1, step}:
        few = engine.predict(wave(), more * step + part, LEVELS)
        assert same(few, whole[:, : more * step + part], wave(), kind.rounding)


@pytest.mark.parametrize("levels", [(0.5,), (0.01, 0.99), tuple(np.arange(1, 20) / 20)])
def test_any_levels_may_be_asked_for(engine: ModelEngine, levels: tuple[float, ...]) -> None:
    found = engine.predict(wave(), H, levels)
    assert found.shape == (6, H, len(levels))
    assert (found[..., 1:] >= found[..., :-1]).all()


def test_a_level_does_not_depend_on_the_others(engine: ModelEngine, kind: Kind) -> None:
    alone = engine.predict(wave(), H, (0.5,))
    among = engine.predict(wave(), H, LEVELS)[:, :, 2:3]
    assert same(alone, among, wave(), kind.rounding)


values = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.sampled_from([np.nan, np.nan, 0.0, 1.0, 1.0, -1.0, 3e38, 1e-40]),
)


rows = st.tuples(st.lists(values, min_size=64, max_size=64), st.integers(0, 64))


@settings(max_examples=30, deadline=None)
@given(data=st.lists(rows, min_size=1, max_size=16), horizon=st.integers(1, 80))
def test_whatever_was_seen_a_forecast_is_finite_and_its_levels_ascend(
    engine: ModelEngine, data: list[tuple[list[float], int]], horizon: int
) -> None:
    context = np.array([seen for seen, _ in data], np.float32)
    for i, (_, missing) in enumerate(data):
        context[i, :missing] = np.nan
    found = engine.predict(context, horizon, LEVELS)
    assert np.isfinite(found).all()
    assert (found[..., 1:] >= found[..., :-1]).all()


def test_rows_do_not_know_of_each_other(engine: ModelEngine, kind: Kind) -> None:
    context = wave(9)
    context[2] = np.nan
    context[4, 60] = 3e38
    context[6] = 7.0
    together = engine.predict(context, H, LEVELS)
    mixed = engine.predict(context[::-1].copy(), H, LEVELS)[::-1]
    alone = np.concatenate([engine.predict(context[i : i + 1], H, LEVELS) for i in range(9)])
    scale = np.array([np.nanmax(np.abs(row)) if np.isfinite(row).any() else 1.0 for row in context])
    for other in (alone, mixed):
        near = np.abs(together - other.astype(np.float64)) <= kind.rounding * scale[:, None, None]
        assert near.mean() >= (0.95 if kind.drawn else 1.0)


def test_the_same_question_has_the_same_answer(engine: ModelEngine) -> None:
    first = engine.predict(wave(), H, LEVELS)
    engine.predict(wave(3, 99, seed=5), 7, (0.5,))
    assert (engine.predict(wave(), H, LEVELS) == first).all()


def test_a_context_is_only_read_whatever_its_layout(engine: ModelEngine, kind: Kind) -> None:
    context = wave()
    expected = engine.predict(context.copy(), H, LEVELS)
    read_only = np.frombuffer(context.tobytes(), np.float32).reshape(context.shape)
    wide = np.full((6, 2 * T), np.nan, np.float32)
    wide[:, ::2] = context
    for given_context in (read_only, np.asfortranarray(context), wide[:, ::2]):
        before = given_context.copy()
        assert same(engine.predict(given_context, H, LEVELS), expected, context, kind.rounding)
        assert (given_context == before).all()


@pytest.mark.parametrize("more", [1, 64, 200])
def test_missing_steps_before_the_first_known_one_change_nothing(
    engine: ModelEngine, kind: Kind, more: int
) -> None:
    context = wave()
    padded = np.concatenate([np.full((6, more), np.nan, np.float32), context], axis=1)
    found, expected = engine.predict(padded, H, LEVELS), engine.predict(context, H, LEVELS)
    assert same(found, expected, context, kind.rounding)


@pytest.mark.parametrize("value", [0.0, 1.0, -3.5, 1e-30, 1e9, 1e30])
def test_a_constant_stays_what_it_is(engine: ModelEngine, value: float) -> None:
    context = np.full((2, T), value, np.float32)
    context[1, 10:90] = np.nan
    found = engine.predict(context, H, LEVELS).astype(np.float64)
    assert np.abs(found - value).max() <= 1e-3 * abs(value)


@pytest.mark.parametrize("scale", [2.0**-60, 2.0**-10, 2.0**10, 2.0**60])
def test_units_do_not_matter(engine: ModelEngine, scale: float) -> None:
    context = wave()
    scaled = engine.predict((context * scale).astype(np.float32), H, LEVELS) / scale
    assert same(scaled.astype(np.float32), engine.predict(context, H, LEVELS), context, share=1e-2)


def test_a_series_without_a_single_value_has_some_forecast(engine: ModelEngine) -> None:
    found = engine.predict(np.full((3, T), np.nan, np.float32), H, LEVELS)
    assert np.isfinite(found).all()


def test_missing_steps_do_not_move_a_forecast_far(trained: ModelEngine) -> None:
    context = wave()
    holes = context.copy()
    holes[:, np.random.default_rng(3).random(T) < 0.2] = np.nan
    near = trained.predict(holes, H, (0.5,)) - trained.predict(context, H, (0.5,))
    assert (np.abs(near) / spread(context)).mean() < 0.1


def test_a_season_is_followed(trained: ModelEngine) -> None:
    """The median is nearer to what comes than the last value is, by half at least."""
    whole = wave(steps=8 * 24 + H)
    context, future = whole[:, :-H], whole[:, -H:]
    median = trained.predict(context, H, (0.5,))[:, :, 0]
    assert np.abs(median - future).mean() < 0.5 * np.abs(context[:, -1:] - future).mean()


def test_bands_hold_what_they_promise_of_noise(trained: ModelEngine) -> None:
    """Of 90 % between the outer levels at least 75 % are held, and not everything: 200 series."""
    whole = np.random.default_rng(11).normal(5, 1, (200, 256 + H)).astype(np.float32)
    found = trained.predict(whole[:, :-H], H, LEVELS)
    future = whole[:, -H:]
    inside = (future >= found[:, :, 0]) & (future <= found[:, :, -1])
    assert 0.75 < inside.mean() < 0.98
    assert 0.4 < (future <= found[:, :, 2]).mean() < 0.6
