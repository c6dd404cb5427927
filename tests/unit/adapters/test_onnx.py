"""The engine on onnxruntime gives what the checkpoint gives in Chronos' own pipeline."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from openanomaly.adapters.chronos import ChronosAdapter
from openanomaly.adapters.engines import built_in_checkpoint
from openanomaly.adapters.onnx import OnnxAdapter
from openanomaly.errors import ConfigError, ForecastError
from openanomaly.training.bolt_graph import BoltConfig, build
from openanomaly.training.export import export

F32 = NDArray[np.float32]
LEVELS = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


def contexts(rows: int = 40, steps: int = 512) -> F32:
    """Walks, waves with noise, and rows with holes, a late beginning, or few values."""
    rng = np.random.default_rng(4)
    walk = rng.normal(size=(rows, steps)).cumsum(axis=1)
    wave = 100 + 5 * np.sin(2 * np.pi * np.arange(steps) / 48) + rng.normal(size=(rows, steps))
    out = np.where(np.arange(rows)[:, None] % 2, walk, wave).astype(np.float32)
    out[3, : steps // 2] = np.nan
    out[4, rng.random(steps) < 0.4] = np.nan
    out[5, :-3] = np.nan
    return out


def stock(checkpoint: Path, context: F32, horizon: int) -> F32:
    """(B, Q, H) of chronos-forecasting's pipeline, at the levels of the checkpoint."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from chronos import BaseChronosPipeline

    pipeline = BaseChronosPipeline.from_pretrained(str(checkpoint), device_map="cpu")
    out: F32 = pipeline.predict(torch.from_numpy(context), prediction_length=horizon).numpy()
    return out


def checkpoint(folder: Path, **changes: object) -> Path:
    """A Chronos-Bolt with random weights."""
    import torch
    from chronos.chronos_bolt import ChronosBoltModelForForecasting
    from transformers import T5Config

    torch.manual_seed(5)
    chronos = {
        "context_length": 256,
        "input_patch_size": 8,
        "input_patch_stride": 8,
        "prediction_length": 24,
        "quantiles": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9],
        "use_reg_token": True,
    }
    fields: dict[str, object] = {
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 64,
        "num_layers": 2,
        "num_decoder_layers": 3,
        "num_heads": 4,
        "feed_forward_proj": "relu",
        "initializer_factor": 1.0,
        "is_encoder_decoder": True,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "decoder_start_token_id": 0,
        "dropout_rate": 0.0,
    }
    config = T5Config(**{**fields, **changes})
    config.architectures = ["ChronosBoltModelForForecasting"]
    config.chronos_pipeline_class = "ChronosBoltPipeline"
    config.chronos_config = {**chronos, "use_reg_token": changes.get("reg", True)}
    ChronosBoltModelForForecasting(config).eval().save_pretrained(folder)
    return folder


def parity(found: F32, expected: F32, context: F32) -> float:
    """The largest difference, in spreads of the row; random weights forecast far beyond them."""
    spread = np.maximum(np.nanstd(context, axis=1), np.abs(expected).max(axis=(1, 2)))
    return float((np.abs(found - expected) / np.maximum(spread, 1e-6)[:, None, None]).max())


@pytest.mark.parametrize("steps", [512, 500, 64, 16, 5])
def test_the_built_in_graph_is_the_built_in_checkpoint(steps: int) -> None:
    context = contexts()[:, -steps:]
    found = OnnxAdapter(built_in_checkpoint() / "model.onnx").predict(context, 64, LEVELS)
    expected = np.sort(stock(built_in_checkpoint(), context, 64), axis=1).transpose(0, 2, 1)
    assert parity(found, expected, context) < 1e-3


def test_the_built_in_graph_is_what_export_writes(tmp_path: Path) -> None:
    export(built_in_checkpoint(), tmp_path / "again.onnx", "chronos-bolt-nano")
    shipped = onnx.load(str(built_in_checkpoint() / "model.onnx"))
    again = onnx.load(str(tmp_path / "again.onnx"))
    assert again.graph.node == shipped.graph.node
    assert again.metadata_props == shipped.metadata_props
    assert [c.name for c in again.graph.initializer] == [c.name for c in shipped.graph.initializer]
    for a, b in zip(again.graph.initializer, shipped.graph.initializer, strict=True):
        np.testing.assert_allclose(onnx.numpy_helper.to_array(a), onnx.numpy_helper.to_array(b), atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "horizon"),
    [
        ({}, 24),
        ({"reg": False}, 24),
        ({"feed_forward_proj": "gated-gelu"}, 24),
        ({"num_decoder_layers": 1, "num_layers": 4}, 10),
    ],
    ids=["plain", "no REG token", "gated", "other depths"],
)
def test_any_checkpoint_of_bolt_can_be_exported(
    tmp_path: Path, changes: dict[str, object], horizon: int
) -> None:
    folder = checkpoint(tmp_path / "tiny", **changes)
    export(folder, tmp_path / "tiny.onnx")
    engine = OnnxAdapter(tmp_path / "tiny.onnx")
    assert (engine.name, engine.max_context) == ("tiny", 256)
    context = contexts(steps=300)
    levels = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    found = engine.predict(context, horizon, levels)
    expected = np.sort(stock(folder, context, horizon), axis=1).transpose(0, 2, 1)
    assert parity(found, expected, context[:, -256:]) < 1e-3


@pytest.mark.parametrize("horizon", [65, 200])
def test_beyond_a_pass_it_goes_on_as_the_engine_on_torch_does(horizon: int) -> None:
    context = contexts(12)
    found = OnnxAdapter(built_in_checkpoint() / "model.onnx").predict(context, horizon, LEVELS)
    torch_engine = ChronosAdapter(str(built_in_checkpoint()), device="cpu")
    assert parity(found, torch_engine.predict(context, horizon, LEVELS), context) < 2e-3


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_nothing(threads: int) -> None:
    context = contexts(100)
    one = OnnxAdapter(built_in_checkpoint() / "model.onnx", threads).predict(context, 20, (0.5,))
    two = OnnxAdapter(built_in_checkpoint() / "model.onnx", 2).predict(context, 20, (0.5,))
    assert (one == two).all()


def test_nothing_is_left_behind_nor_told_to_anybody(tmp_path: Path) -> None:
    """onnxruntime's telemetry keeps a file in the temporary folder; without it there is none."""
    code = (
        "import numpy as np, time\n"
        "from openanomaly.adapters.engines import make_engines\n"
        "engine = make_engines(['chronos-bolt-nano'])['chronos-bolt-nano']\n"
        "engine.predict(np.zeros((2, 64), np.float32), 8, (0.5,))\n"
        "time.sleep(1)\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    for folder in ("tmp", "home", "cache"):
        (tmp_path / folder).mkdir()
    environment |= {"TMPDIR": str(tmp_path / "tmp"), "HOME": str(tmp_path / "home")}
    environment |= {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_graph_of_somebody_else_is_refused(tmp_path: Path) -> None:
    model = onnx.load(str(built_in_checkpoint() / "model.onnx"))
    del model.metadata_props[:]
    onnx.save(model, str(tmp_path / "other.onnx"))
    with pytest.raises(ConfigError, match=r"other\.onnx: not written by `openanomaly export`"):
        OnnxAdapter(tmp_path / "other.onnx")


def test_an_engine_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = OnnxAdapter(built_in_checkpoint() / "model.onnx", threads=2)

    class Session:
        words = "Failed to allocate memory for requested buffer of size 12884901888"

        def run(self, *given: object) -> None:
            raise RuntimeError(self.words)

    monkeypatch.setattr(engine, "_session", Session())
    with pytest.raises(ForecastError, match="Failed to allocate") as caught:
        engine.predict(contexts(), 4, (0.5,))
    assert caught.value.reason == "memory"
    Session.words = "Non-zero status code"
    with pytest.raises(ForecastError) as caught:
        engine.predict(contexts(), 4, (0.5,))
    assert caught.value.reason == "engine"


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("config.json", None, "config.json"),
        ("config.json", "{", "no checkpoint of Chronos-Bolt"),
        ("config.json", "{}", "only Chronos-Bolt can be exported"),
        ("model.safetensors", None, "model.safetensors"),
        ("model.safetensors", "cut", "no checkpoint of Chronos-Bolt"),
    ],
)
def test_what_is_no_checkpoint_is_refused_by_export(
    tmp_path: Path, file: str, text: str | None, words: str
) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        if name != file or text is not None:
            (folder / name).write_bytes((built_in_checkpoint() / name).read_bytes())
    if text is not None:
        (folder / file).write_text(text)
    with pytest.raises(ConfigError, match=words):
        export(folder, tmp_path / "out.onnx")


def test_weights_that_are_missing_are_named(tmp_path: Path) -> None:
    weights = load_file(built_in_checkpoint() / "model.safetensors")
    del weights["encoder.final_layer_norm.weight"]
    save_file(weights, tmp_path / "model.safetensors")
    config = BoltConfig.of(json.loads((built_in_checkpoint() / "config.json").read_text()))
    with pytest.raises(ConfigError, match=r"no weights encoder\.final_layer_norm\.weight"):
        build(config, load_file(tmp_path / "model.safetensors"), "x")
