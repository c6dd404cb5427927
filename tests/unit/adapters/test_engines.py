"""Which engine the name of a model means."""

import shutil
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from openanomaly.adapters import chronos, engines
from openanomaly.adapters.engines import built_in_checkpoint, make_engines
from openanomaly.adapters.onnx import OnnxAdapter
from openanomaly.core.pipelines import models
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.errors import ConfigError


class Oracle:
    """An engine of another package."""

    name = "oracle"
    max_context = 64
    fixed_shapes = False
    device = "cpu"
    horizon_step = 1

    def __init__(self, threads: int, device: str) -> None:
        self.given = threads, device

    def predict(
        self, context: NDArray[np.float32], horizon: int, quantiles: Sequence[float]
    ) -> NDArray[np.float32]:
        return np.zeros((len(context), horizon, len(quantiles)), np.float32)


@pytest.fixture
def oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that brings the engine `oracle` is installed."""
    monkeypatch.setitem(sys.modules, "oracle_package", sys.modules[__name__])
    found = EntryPoints([EntryPoint("oracle", "oracle_package:Oracle", models.ENGINES_GROUP)])
    for module in (models, engines):
        monkeypatch.setattr(module, "entry_points", lambda **wanted: found.select(**wanted))


def test_auto_is_the_built_in_model_on_onnxruntime_where_there_is_no_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engines, "_GPU", ())
    made = make_engines(["auto", "chronos-bolt-nano", "statistical"])
    assert {name: engine.name for name, engine in made.items()} == {
        "auto": "chronos-bolt-nano",
        "chronos-bolt-nano": "chronos-bolt-nano",
        "statistical": "statistical",
    }
    assert made["auto"] is made["chronos-bolt-nano"], "one instance of what is the same"
    assert isinstance(made["auto"], OnnxAdapter)


def test_a_gpu_that_torch_can_use_runs_the_checkpoint(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    device = tmp_path / "gpu"
    monkeypatch.setattr(engines, "_GPU", (str(device),))
    for is_there, is_usable, wants in ((False, True, False), (True, False, False), (True, True, True)):
        device.unlink(missing_ok=True)
        if is_there:
            device.touch()
        monkeypatch.setattr(chronos, "has_gpu", lambda is_usable=is_usable: is_usable)
        assert engines._wants_gpu("auto") == wants
    assert not engines._wants_gpu("cpu")
    assert engines._wants_gpu("cuda:1"), "who asks for it gets it, or an error"


def test_a_device_file_without_a_gpu_is_no_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if chronos.has_gpu():
        return  # here there is one
    device = tmp_path / "gpu"
    device.touch()
    monkeypatch.setattr(engines, "_GPU", (str(device),))
    with caplog.at_level("INFO"):
        assert isinstance(make_engines(["auto"])["auto"], OnnxAdapter)
    assert "model auto: chronos-bolt-nano on cpu" in caplog.text


def test_the_built_in_model_on_torch_has_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_wants_gpu", lambda device: True)
    engine = make_engines(["auto"], device="cpu")["auto"]
    assert isinstance(engine, chronos.ChronosAdapter)
    assert (engine.name, engine.device) == ("chronos-bolt-nano", "cpu")


def test_a_gpu_without_torch_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_has_torch", lambda: False)
    with pytest.raises(ConfigError, match=r"inference\.device=cuda needs torch"):
        make_engines(["auto"], device="cuda")


def test_an_engine_that_knows_no_gpu_says_so(caplog: pytest.LogCaptureFixture) -> None:
    make_engines(["statistical"], device="cuda")
    assert "model statistical runs on the processor, whatever inference.device=cuda says" in caplog.text


def test_auto_does_with_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    here = {"torch", "chronos"}
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: name if name in here else None)
    monkeypatch.setattr(engines, "_GPU", ())
    engine = make_engines(["auto"])["auto"]
    assert isinstance(engine, chronos.ChronosAdapter)
    assert engine.name == "chronos-bolt-nano"
    here.clear()
    assert make_engines(["auto"])["auto"].name == "statistical"


def test_a_file_is_run_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "mine.onnx"
    shutil.copy(built_in_checkpoint() / "model.onnx", file)
    assert isinstance(make_engines([str(file)])[str(file)], OnnxAdapter)


def test_an_engine_of_another_package_is_found_by_its_name(oracle: None) -> None:
    assert Pipeline(name="a", model="oracle").model == "oracle"
    engine = make_engines(["oracle"], threads=3, device="cpu")["oracle"]
    assert isinstance(engine, Oracle)
    assert engine.given == (3, "cpu")


@pytest.mark.parametrize("name", ["./none.onnx", "/nowhere/model.onnx"])
def test_a_file_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match=f"cannot read model {Path(name)}"):
        make_engines([name])


def test_a_file_that_is_no_graph_is_named(tmp_path: Path) -> None:
    file = tmp_path / "bad.onnx"
    file.write_bytes(b"not a graph")
    with pytest.raises(ConfigError, match=r"bad\.onnx is no ONNX graph"):
        make_engines([str(file)])


@pytest.mark.parametrize("name", ["", "  ", "chronos", "statistic", "nano"])
def test_a_name_that_can_be_no_model_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="there is no model"):
        Pipeline(name="a", model=name)


@pytest.mark.parametrize(
    "name", ["amazon/chronos-bolt-small", "./folder", "/a/b", "x.onnx", "chronos-bolt-nano"]
)
def test_a_name_that_may_be_a_model_passes(name: str) -> None:
    assert Pipeline(name="a", model=name).model == name
