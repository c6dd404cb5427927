"""Which engine the name of a model means."""

import shutil
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from openanomaly.adapters import engines
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


def test_auto_is_the_checkpoint_on_torch_where_there_is_a_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gpu = tmp_path / "gpu"
    gpu.touch()
    monkeypatch.setattr(engines, "_GPU", (str(gpu),))
    assert engines._best("auto") == str(built_in_checkpoint())
    assert engines._best("cuda:1") == str(built_in_checkpoint())
    assert engines._best("cpu") == "chronos-bolt-nano"


def test_auto_does_with_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    here: set[str] = {"torch", "chronos"}
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: name if name in here else None)
    monkeypatch.setattr(engines, "_GPU", ())
    assert engines._best("auto") == str(built_in_checkpoint())
    here.clear()
    assert engines._best("auto") == "statistical"


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
