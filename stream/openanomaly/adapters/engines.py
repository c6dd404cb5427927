"""Which engine a pipeline's `model` means. Heavy libraries are imported when one of theirs is asked for."""

import importlib.util
import logging
import os
from collections.abc import Iterable
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path

from openanomaly.adapters.statistical import StatisticalAdapter
from openanomaly.core.pipelines.models import BUILT_IN, ENGINES_GROUP
from openanomaly.core.ports.model_engine import ModelEngine
from openanomaly.errors import ConfigError

log = logging.getLogger(__name__)

_GPU = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")


def make_engines(models: Iterable[str], threads: int = 0, device: str = "auto") -> dict[str, ModelEngine]:
    """The engine of each model, one for models that mean the same.

    `threads` of 0 leaves it to the engine how many it takes; `device` is where torch works.

    Raises:
        ConfigError: there is no such model, it cannot be read, or what it needs is not installed.
    """
    made: dict[str, ModelEngine] = {}
    out: dict[str, ModelEngine] = {}
    for model in dict.fromkeys(models):
        meant = _best(device) if model == "auto" else model
        if meant not in made:
            made[meant] = _make(meant, threads, device)
        out[model] = made[meant]
        log.info("model %s: %s", model, made[meant].name)
    return out


def built_in_checkpoint() -> Path:
    """The folder of the built-in model's checkpoint."""
    return Path(str(files("openanomaly.models.chronos_bolt_nano")))


def _best(device: str) -> str:
    """What `auto` means here: the built-in model, on a GPU where torch has one, else by onnxruntime."""
    has_torch = (
        importlib.util.find_spec("torch") is not None and importlib.util.find_spec("chronos") is not None
    )
    wants_gpu = device.startswith("cuda") or (device == "auto" and any(map(os.path.exists, _GPU)))
    if has_torch and wants_gpu:
        return str(built_in_checkpoint())
    if importlib.util.find_spec("onnxruntime") is not None:
        return BUILT_IN
    return str(built_in_checkpoint()) if has_torch else "statistical"


def _make(model: str, threads: int, device: str) -> ModelEngine:
    if model == "statistical":
        return StatisticalAdapter(threads)
    if model == BUILT_IN:
        return _onnx(built_in_checkpoint() / "model.onnx", threads)
    for found in entry_points(group=ENGINES_GROUP, name=model):
        engine: ModelEngine = found.load()(threads=threads, device=device)
        return engine
    if model.endswith(".onnx"):
        return _onnx(Path(model), threads)
    from openanomaly.adapters.chronos import ChronosAdapter

    return ChronosAdapter(model, device=device, threads=threads)


def _onnx(path: Path, threads: int) -> ModelEngine:
    try:
        from openanomaly.adapters.onnx import OnnxAdapter
    except ImportError as exc:
        raise ConfigError(f"model {path} needs onnxruntime, which does not load here: {exc}") from exc
    return OnnxAdapter(path, threads)
