"""What is special about the engine for Chronos checkpoints; the rest is the contract of engines."""

import json
import logging
import shutil
import socket
import subprocess
import sys
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import NormalDist
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from chronos import BaseChronosPipeline
from numpy.typing import NDArray

import checkpoints
from openanomaly.adapters.chronos import ChronosAdapter
from openanomaly.adapters.engines import built_in_checkpoint
from openanomaly.core.ports.model_engine import DeviceMemory
from openanomaly.core.scoring.levels import LEVELS
from openanomaly.core.services import attempt
from openanomaly.errors import ConfigError, ForecastError

F32 = NDArray[np.float32]
FAMILIES = checkpoints.TINY


@pytest.fixture(scope="module")
def built_in() -> ChronosAdapter:
    return ChronosAdapter(str(built_in_checkpoint()), device="cpu", threads=1)


def engine(family: str) -> ChronosAdapter:
    return ChronosAdapter(FAMILIES[family](), device="cpu", threads=1)


def stock(folder: str) -> Any:
    """The pipeline of chronos-forecasting."""
    return BaseChronosPipeline.from_pretrained(folder)


def noise(rows: int = 5, steps: int = 200, seed: int = 2) -> F32:
    return np.random.default_rng(seed).normal(3, 2, (rows, steps)).cumsum(axis=1).astype(np.float32)


def test_the_engine_has_the_name_that_the_pipeline_says_and_the_sizes_of_the_checkpoint(
    built_in: ChronosAdapter,
) -> None:
    assert built_in.name == str(built_in_checkpoint())
    assert (built_in.max_context, built_in.horizon_step) == (512, 64)
    assert (engine("bolt").max_context, engine("bolt").horizon_step) == (512, 64)
    assert (engine("chronos2").max_context, engine("chronos2").horizon_step) == (512, 16)
    assert (engine("t5").max_context, engine("t5").horizon_step) == (128, 1)


@pytest.mark.parametrize("family", ["built-in", "bolt", "chronos2"])
def test_the_forecast_is_that_of_the_familys_own_pipeline_for_each_row_alone(family: str) -> None:
    folder = str(built_in_checkpoint()) if family == "built-in" else FAMILIES[family]()
    context = noise()
    levels = [0.1, 0.5, 0.9]
    pipeline = stock(folder)
    rows = [pipeline.predict([torch.from_numpy(row)], prediction_length=40)[0] for row in context]
    # Levels that cross are sorted by us, so all of them are asked for.
    raw = np.sort(torch.stack(rows).numpy().reshape(5, -1, 40), axis=1)
    expected = raw[:, [list(pipeline.quantiles).index(level) for level in levels]].transpose(0, 2, 1)
    found = ChronosAdapter(folder, device="cpu", threads=1).predict(context, 40, levels)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


def test_t5_draws_from_the_distribution_that_its_own_pipeline_draws_from(tmp_path: Path) -> None:
    """Over many paths the quantiles agree; how far two runs of the pipeline differ is the measure."""
    folder = str(checkpoints.t5(tmp_path, num_samples=500, top_k=20, top_p=0.9, temperature=0.7))
    context = noise(3, 60)
    context = (context - context.mean(axis=1, keepdims=True)) / context.std(axis=1, keepdims=True)
    pipeline = stock(folder)

    def drawn() -> F32:
        asked = {"prediction_length": 6, "quantile_levels": LEVELS}
        out: F32 = pipeline.predict_quantiles(torch.from_numpy(context), **asked)[0].numpy()
        return out

    with torch.random.fork_rng([]):
        torch.manual_seed(1)
        one, other = drawn(), drawn()
    found = ChronosAdapter(folder, device="cpu", threads=1).predict(context, 6, LEVELS)
    chance = np.abs(one - other).mean()
    assert chance > 0
    assert np.abs(found - (one + other) / 2).mean() < 1.2 * chance


def test_t5_leaves_the_random_numbers_of_others_alone() -> None:
    t5 = engine("t5")
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    first = t5.predict(noise(), 5, LEVELS)
    assert (torch.rand(4) == expected).all()
    assert (t5.predict(noise(), 5, LEVELS) == first).all(), "nor does it use them"


def test_t5_rows_are_drawn_alike_in_whatever_batch() -> None:
    """Beyond its rows at a time, too: each row has the same shares of its distribution."""
    t5 = engine("t5")
    context = np.repeat(noise(1), 40, axis=0)
    found = t5.predict(context, 4, LEVELS)
    np.testing.assert_allclose(found, np.repeat(found[:1], 40, axis=0), rtol=1e-5)


def test_levels_beyond_those_of_the_checkpoint_continue_its_outermost_and_are_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bolt = engine("bolt")
    caplog.set_level(logging.INFO, logger="openanomaly.adapters.chronos")
    found = bolt.predict(noise(), 10, (0.05, 0.1, 0.2, 0.8, 0.9, 0.95))
    bolt.predict(noise(), 10, (0.05, 0.5))
    told = [record.getMessage() for record in caplog.records]
    assert told == [f"model {bolt.name} has levels 0.1 to 0.9; extrapolated: 0.05, 0.95"]
    z = [NormalDist().inv_cdf(p) for p in (0.05, 0.1, 0.2)]
    slope = (found[..., 2] - found[..., 1]) / (z[2] - z[1])
    np.testing.assert_allclose(found[..., 0], found[..., 1] - slope * (z[1] - z[0]), rtol=1e-3, atol=1e-3)
    assert (found[..., 0] < found[..., 1]).all()
    assert (found[..., 5] > found[..., 4]).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_horizon_beyond_the_checkpoints_own_goes_on_from_it(family: str) -> None:
    it = engine(family)
    whole = it.predict(noise(), 150, LEVELS)
    assert np.isfinite(whole).all()
    np.testing.assert_allclose(whole[:, :64], it.predict(noise(), 64, LEVELS), rtol=1e-4, atol=1e-3)
    alone = it.predict(noise()[2:3], 150, LEVELS)
    np.testing.assert_allclose(whole[2:3], alone, rtol=1e-4, atol=1e-3)


def test_bands_hold_what_they_promise_beyond_the_horizon_of_the_model(built_in: ChronosAdapter) -> None:
    """90 % of the second and third pass, of 100 waves with noise (Chronos' own pipeline: 98 to 100 %)."""
    rng = np.random.default_rng(8)
    wave = np.sin(2 * np.pi * (np.arange(512 + 192) / 48 + rng.random((100, 1))))
    whole = (3 * wave + rng.normal(0, 0.5, wave.shape)).astype(np.float32)
    found = built_in.predict(whole[:, :512], 192, LEVELS)[:, 64:]
    future = whole[:, 512 + 64 :]
    inside = (future >= found[:, :, 0]) & (future <= found[:, :, -1])
    assert 0.8 < inside.mean() < 0.96


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_larger_than_memory_asks_for_smaller_batches(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The processor's allocator refuses 256 TB, whatever the machine."""
    it = engine(family)
    made: list[weakref.ref[torch.Tensor]] = []

    def forward(*args: object, **kwargs: object) -> object:
        large = torch.zeros(1 << 20)
        made.append(weakref.ref(large))
        return torch.empty(1 << 48, dtype=torch.uint8)

    monkeypatch.setattr(it._family._model, "forward", forward)
    with pytest.raises(ForecastError, match=r"on cpu: .*alloc") as caught:
        it.predict(noise(), 8, LEVELS)
    assert caught.value.reason == "memory"
    assert made[0]() is None, "what was made before is free again, though the error is still in hand"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."), "memory"),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            "memory",
        ),
        (MemoryError("Unable to allocate 3.00 GiB"), "memory"),
        (RuntimeError("CUDA error: device-side assert triggered"), "engine"),
        (ValueError("Input X contains a surprise"), "engine"),
    ],
)
def test_errors_of_the_model_have_a_reason(
    built_in: ChronosAdapter, error: Exception, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(*args: object, **kwargs: object) -> object:
        raise error

    monkeypatch.setattr(built_in._family._model, "forward", forward)
    with pytest.raises(ForecastError, match=str(error)[:12]) as caught:
        built_in.predict(noise(), 8, LEVELS)
    assert caught.value.reason == reason
    assert caught.value.__cause__ is error


def test_a_batch_that_is_too_large_is_halved_until_it_fits(
    built_in: ChronosAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = noise(20)
    expected = built_in.predict(context, 8, LEVELS)
    whole = built_in._family._model.forward

    def forward(context: torch.Tensor) -> object:
        if len(context) > 6:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return whole(context=context)

    monkeypatch.setattr(built_in._family._model, "forward", forward)
    outcome = attempt.forecast(built_in, context, 8, LEVELS)
    assert outcome.ok.all()
    assert outcome.fits == 5
    np.testing.assert_allclose(outcome.forecast, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_row_that_the_model_has_no_numbers_for_spoils_no_other(
    built_in: ChronosAdapter, bad: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = noise(5)
    expected = built_in.predict(context, 8, LEVELS)
    whole = built_in._family._model.forward

    def forward(context: torch.Tensor) -> Any:
        found = whole(context=context)
        found.quantile_preds[2, 4, 1] = bad
        return found

    monkeypatch.setattr(built_in._family._model, "forward", forward)
    outcome = attempt.forecast(built_in, context, 8, LEVELS)
    assert outcome.ok.tolist() == [True, True, False, True, True]
    assert outcome.failed == {"nan": 1}
    assert (outcome.forecast[outcome.ok] == expected[outcome.ok]).all()


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def change(**fields: object) -> Callable[[Path], None]:
    def do(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        config |= fields
        (folder / "config.json").write_text(json.dumps(config))

    return do


def cut(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])


def garble(folder: Path) -> None:
    (folder / "config.json").write_text("{")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (remove("config.json"), "config.json"),
        (remove("model.safetensors"), "no file named model.safetensors"),
        (cut, "SafetensorError"),
        (garble, "not a valid JSON file"),
        (change(chronos_config=None), "chronos|mapping|NoneType"),
        (change(d_model=48), "size"),
        (change(num_layers=3), "weights are missing: encoder.block."),
        (change(chronos_pipeline_class="Chronos9Pipeline"), "Chronos9Pipeline"),
    ],
    ids=["no config", "no weights", "half the weights", "no JSON", "no Chronos", "width", "depth", "future"],
)
def test_a_folder_that_is_no_checkpoint_is_named_with_the_reason(
    family: str, spoil: Callable[[Path], None], words: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(FAMILIES[family](), folder)
    spoil(folder)
    with pytest.raises(ConfigError, match=words) as caught:
        ChronosAdapter(str(folder), device="cpu")
    assert str(caught.value).startswith(
        f"cannot load model '{folder}' (the folder) as a Chronos checkpoint: "
    )
    assert str(caught.value).endswith("check `model` of the pipelines")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == "", "one line says it; the libraries say nothing"


@pytest.mark.parametrize("name", ["amazon/chronos-bolt-none", "./nowhere/at-all", "/nowhere"])
def test_a_name_that_is_not_within_reach_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=rf"cannot load model '{name}' \(no folder, so a name on the hub\)"):
        ChronosAdapter(name, device="cpu")


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_asked_of_the_hub_for_a_folder(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def refuse(self: socket.socket, address: object) -> None:
        asked.append(address)
        raise OSError("no network in this test")

    def resolve(host: object, *more: object, **options: object) -> list[object]:
        asked.append(host)
        raise OSError("no network in this test")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert np.isfinite(engine(family).predict(noise(), 3, LEVELS)).all()
    assert asked == []


@pytest.mark.parametrize("missing", ["torch", "chronos"])
def test_a_missing_extra_is_named_with_what_installs_it(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(
        ConfigError, match=rf"{missing}.*pip install 'openanomaly\[chronos\]'.*--extra chronos"
    ):
        ChronosAdapter("amazon/chronos-bolt-tiny")


def test_torch_is_not_imported_before_an_engine_is_made() -> None:
    code = "import sys, openanomaly.adapters.chronos; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_memory_of_a_gpu_is_what_torch_says_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """By stand-ins for what torch says; the contract of engines asks a real GPU where there is one."""
    it, gpu = engine("bolt"), torch.device("cuda:1")
    assert it.device_memory() is None
    monkeypatch.setattr(it, "_device", gpu)
    monkeypatch.setattr(torch.cuda, "mem_get_info", {gpu: (50, 80)}.__getitem__)
    monkeypatch.setattr(torch.cuda, "memory_reserved", {gpu: 20}.__getitem__)
    monkeypatch.setattr(torch.cuda, "memory_allocated", {gpu: 10}.__getitem__)
    assert it.device_memory() == DeviceMemory(total=80, free=50, reserved=20, allocated=10)


def test_auto_is_cuda_where_there_is_one() -> None:
    it = ChronosAdapter(FAMILIES["bolt"]())
    assert it._device.type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(
    ("device", "words"),
    [("gpu", "use auto, cpu, cuda"), ("", "use auto, cpu, cuda"), ("cuda:99", r"sees \d+ CUDA devices")],
)
def test_a_device_that_is_not_there_is_named(device: str, words: str) -> None:
    with pytest.raises(ConfigError, match=f"device '{device}': .*{words}"):
        ChronosAdapter(FAMILIES["bolt"](), device=device)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_count_in_whatever_thread_predicts(threads: int) -> None:
    before = torch.get_num_threads()
    try:
        ChronosAdapter(FAMILIES["bolt"](), device="cpu", threads=threads)
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == threads
    finally:
        torch.set_num_threads(before)
