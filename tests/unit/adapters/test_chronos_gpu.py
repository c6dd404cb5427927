"""What a GPU is given to do, computed on the processor; which shapes become graphs, by stand-ins for them.

The contract of engines runs the same on a GPU, with real graphs, where there is one.
"""

import logging
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

import checkpoints
from openanomaly.adapters import chronos_gpu
from openanomaly.adapters.chronos import ChronosAdapter
from openanomaly.adapters.chronos_gpu import GpuPass
from openanomaly.adapters.engines import built_in_checkpoint
from openanomaly.core.scoring.levels import LEVELS
from openanomaly.core.services.shapes import lengths
from openanomaly.core.standard import standardise
from openanomaly.errors import ForecastError

F32 = NDArray[np.float32]
H = 24
ENGINES = {
    "built-in": ChronosAdapter(str(built_in_checkpoint()), device="cpu", threads=1),
    **{
        name: ChronosAdapter(checkpoints.TINY[name](), device="cpu", threads=1)
        for name in ("bolt", "chronos2")
    },
}


def pass_of(engine: ChronosAdapter) -> GpuPass:
    return GpuPass(torch, engine._family, torch.device("cpu"), engine.name)


def noise(rows: int = 5, steps: int = 128, seed: int = 2) -> F32:
    return np.random.default_rng(seed).normal(3, 2, (rows, steps)).cumsum(axis=1).astype(np.float32)


def hard() -> F32:
    """Rows with holes, constants, sizes at both ends, a young series, and one that nobody has seen."""
    context = noise(9)
    context[1, 5:90] = np.nan
    context[2] = 7.0
    context[3] *= np.float32(1e35)
    context[4] *= np.float32(1e-35)
    context[5, :100] = np.nan
    context[6] = np.nan
    context[7, 64] = 3e38
    context[8] = np.where(np.arange(128) % 2, 1e9 + 64, 1e9)
    return context


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("levels", [LEVELS, (0.5,), (0.01, 0.1, 0.33, 0.9, 0.99)])
@pytest.mark.parametrize("horizon", [1, H, 64])
def test_the_forecast_is_that_of_the_processor(name: str, levels: tuple[float, ...], horizon: int) -> None:
    engine, context = ENGINES[name], hard()
    with torch.inference_mode():
        found = pass_of(engine).forecast(context, horizon, levels)
    expected = engine.predict(context, horizon, levels)
    assert found.dtype == np.float32
    size = np.abs(np.where(np.isfinite(context), context, 0)).max(axis=1)[:, None, None]
    size[6] = 1  # of the series that nobody has seen
    assert (np.abs(found.astype(np.float64) - expected) <= 1e-5 * size).all()


values = st.floats(allow_nan=True, allow_infinity=True, width=32) | st.sampled_from([0.0, 1.0, 1.0, np.nan])
some = arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 12)), elements=values)


@settings(max_examples=200, deadline=None)
@given(context=some)
def test_rows_are_standardised_alike(context: F32) -> None:
    z, location, scale = (x.numpy() for x in chronos_gpu._standardised(torch, torch.from_numpy(context)))
    expected_z, expected_location, expected_scale = standardise(context, np.isfinite(context))
    # What is left of two values that are nearly one is their rounding: it shows in units of their size.
    size = np.abs(np.where(np.isfinite(context), context, 0)).max(axis=1).astype(np.float64)
    assert (np.abs(location - expected_location) <= 1e-12 * size).all()
    assert (np.abs(scale - expected_scale) <= 1e-12 * size + 1e-12).all()
    assert (np.isfinite(z) == np.isfinite(context)).all()
    off = np.abs(np.nan_to_num(z) * scale[:, None] - np.nan_to_num(expected_z) * expected_scale[:, None])
    assert (off <= 1e-6 * size[:, None]).all()


def test_a_row_that_the_model_has_no_numbers_for_is_nan_and_spoils_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = ENGINES["bolt"]
    expected = engine.predict(noise(), 8, LEVELS)
    step = engine._family.step

    def with_a_hole(z: torch.Tensor, steps: int) -> Any:
        found = step(z, steps)
        found[2, 4, 1] = torch.inf
        return found

    monkeypatch.setattr(engine._family, "step", with_a_hole)
    with torch.inference_mode():
        found = pass_of(engine).forecast(noise(), 8, LEVELS)
    assert np.isnan(found[2]).all()
    np.testing.assert_allclose(np.delete(found, 2, 0), np.delete(expected, 2, 0), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 63, 64, 65, 100, 300, 511, 512])
@pytest.mark.parametrize("known", [0, 1, 30, 64, 70, 512])
def test_contexts_have_one_of_a_few_lengths_and_lose_nothing(steps: int, known: int) -> None:
    context = noise(3, steps)
    context[:, : max(0, steps - known)] = np.nan
    found = pass_of(ENGINES["bolt"]).fit(context)
    assert found.shape[1] in lengths(512)
    kept = min(steps, found.shape[1])
    np.testing.assert_array_equal(found[:, -kept:], context[:, -kept:])
    assert np.isnan(found[:, :-kept]).all()
    assert np.isnan(context[:, :-kept]).all()


class Recorder:
    """A GpuPass whose graphs are stand-ins: they compute what a graph would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> None:
        self.made: list[chronos_gpu.Shape] = []
        self.replayed: list[chronos_gpu.Shape] = []
        self.error = error
        self.run = pass_of(ENGINES["bolt"])
        self.run._records = True
        monkeypatch.setattr(self.run, "_graph", self.graph)

    def graph(self, shape: chronos_gpu.Shape) -> chronos_gpu._Graph:
        if self.error is not None:
            raise self.error
        self.made.append(shape)
        rows, steps, horizon, levels = shape
        context, forecast = torch.zeros(rows, steps), torch.zeros(rows, horizon, len(levels))
        recorder = self

        class Stand:
            def replay(self) -> None:
                recorder.replayed.append(shape)
                forecast.copy_(recorder.run._whole(context, horizon, levels))

        return chronos_gpu._Graph(context, forecast, Stand())

    def ask(self, rows: int, horizon: int = H) -> F32:
        with torch.inference_mode():
            return self.run.forecast(noise(rows, 64), horizon, LEVELS)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_shape_that_comes_again_is_recorded_once_and_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    it = Recorder(monkeypatch)
    first = it.ask(16)
    assert it.made == it.replayed == []
    for _ in range(3):
        np.testing.assert_array_equal(it.ask(16), first)
    assert len(it.made) == 1
    assert len(it.replayed) == 3


@pytest.mark.parametrize(
    ("rows", "filled"), [(1, 16), (16, 16), (17, 24), (33, 48), (1024, 1024), (1025, 1025)]
)
def test_batches_are_filled_up_to_few_sizes_and_have_their_own_answers(
    rows: int, filled: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = Recorder(monkeypatch)
    expected = ENGINES["bolt"].predict(noise(rows, 64), H, LEVELS)
    for _ in range(2):
        np.testing.assert_allclose(it.ask(rows), expected, rtol=1e-4, atol=1e-3)
    assert [shape[0] for shape in it.made] == [filled]


@pytest.mark.parametrize(("most", "rows"), [(1024, 1024), (819, 768), (16, 16), (5, 5)])
def test_what_is_cut_into_passes_needs_no_filling(most: int, rows: int) -> None:
    assert pass_of(ENGINES["bolt"]).rows(most) == rows


def test_the_shapes_of_a_fleet_fit_into_the_graphs_that_are_kept() -> None:
    """All numbers of rows up to `inference.max_batch`, by all lengths of a context of 512 steps."""
    rows = {next(r for r in chronos_gpu._ROWS if r >= b) for b in range(1, 1025)}
    assert len(rows) * len(lengths(512)) <= chronos_gpu._GRAPHS


def test_graphs_are_bounded_and_those_in_use_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chronos_gpu, "_GRAPHS", 4)
    it = Recorder(monkeypatch)
    for _ in range(2):
        it.ask(16, 1)
    for horizon in range(2, 10):
        for _ in range(2):
            it.ask(16, horizon)
        it.ask(16, 1)
    assert len(it.run._graphs) == 4
    assert [shape[2] for shape in it.made] == list(range(1, 10)), "the one in use was recorded once"
    it.ask(16, 2)
    assert len(it.made) == 9, "what was forgotten has to come twice again"
    it.ask(16, 2)
    assert len(it.made) == 10


def test_shapes_that_come_once_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chronos_gpu, "_REMEMBERED", 5)
    it = Recorder(monkeypatch)
    for horizon in range(1, 30):
        it.ask(16, horizon)
    assert len(it.run._seen) == 5
    assert it.made == []


def test_a_shape_that_cannot_be_recorded_runs_without_and_others_are_recorded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    it = Recorder(monkeypatch, RuntimeError("CUDA error: operation not permitted\nmore lines"))
    first = it.ask(16)
    for _ in range(3):
        np.testing.assert_array_equal(it.ask(16), first)
    assert told(caplog) == [
        f"model {it.run._name}: a batch of 16 x 64 has no CUDA graph: CUDA error: operation not permitted"
    ]
    it.error = None
    for _ in range(2):
        it.ask(24)
    assert [shape[0] for shape in it.made] == [24]


def test_where_no_shape_can_be_recorded_none_is_tried_any_more_and_it_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    it = Recorder(monkeypatch, RuntimeError("CUDA error: operation not permitted"))
    for rows in (16, 24, 32):
        it.ask(rows)
        it.ask(rows)
    assert told(caplog)[1:] == [
        f"model {it.run._name} runs without CUDA graphs, small batches slower: "
        "CUDA error: operation not permitted"
    ]
    it.error = None
    for _ in range(100):
        it.ask(48)
    assert it.made == []


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_where_memory_is_short_for_graphs_the_batch_runs_without_and_they_come_back_later(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    it = Recorder(monkeypatch)
    it.ask(16)
    it.ask(16)
    it.error = error
    first = it.ask(24)
    np.testing.assert_array_equal(it.ask(24), first)
    assert not it.run._graphs, "their memory is given back"
    it.error = None
    for _ in range(chronos_gpu._PAUSE):
        it.ask(16)
    assert len(it.made) == 1
    it.ask(16)
    it.ask(16)
    assert len(it.made) == 2
    assert told(caplog) == []


def test_a_batch_for_which_memory_is_short_takes_the_graphs_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried next, in halves, has the memory that graphs held."""
    engine = ChronosAdapter(checkpoints.TINY["bolt"](), device="cpu", threads=1)
    it = Recorder(monkeypatch)
    it.ask(16)
    it.ask(16)
    monkeypatch.setattr(engine, "_pass", it.run)

    def forecast(*arguments: object) -> F32:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    with monkeypatch.context() as patch:
        patch.setattr(it.run, "_whole", forecast)
        with pytest.raises(ForecastError) as caught:
            engine.predict(noise(24, 64), H, LEVELS)
    assert caught.value.reason == "memory"
    assert not it.run._graphs
    assert np.isfinite(engine.predict(noise(16, 64), H, LEVELS)).all()


if checkpoints.HAS_CUDA:

    @pytest.mark.parametrize("name", ENGINES)
    def test_graphs_share_memory_and_spoil_nothing_of_each_other(name: str) -> None:
        folder = str(built_in_checkpoint()) if name == "built-in" else checkpoints.TINY[name]()
        engine = ChronosAdapter(folder, device="cuda", precision="float32")
        assert engine._pass is not None
        batches = [
            noise(rows, steps, seed=rows) for rows, steps in ((3, 64), (40, 128), (16, 500), (200, 64))
        ]
        for batch in batches:
            batch[::3, :20] = np.nan
        expected = [engine.predict(batch, H, LEVELS) for batch in batches]  # each for the first time
        for _ in range(3):
            for batch, wanted in zip(batches, expected, strict=True):
                np.testing.assert_allclose(engine.predict(batch, H, LEVELS), wanted, rtol=1e-4, atol=1e-2)
        assert engine._pass._records
        assert len(engine._pass._graphs) == len(batches)
        engine._pass.release()
        for _ in range(chronos_gpu._PAUSE + 2):
            np.testing.assert_allclose(
                engine.predict(batches[0], H, LEVELS), expected[0], rtol=1e-4, atol=1e-2
            )
        assert len(engine._pass._graphs) == 1
