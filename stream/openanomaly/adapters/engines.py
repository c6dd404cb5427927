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
from openanomaly.core.ports.model_engine import ModelEngine, Precision
from openanomaly.errors import ConfigError

log = logging.getLogger(__name__)

_GPU = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")


def make_engines(
    models: Iterable[str], threads: int = 0, device: str = "auto", precision: Precision = "tf32"
) -> dict[str, ModelEngine]:
    """The engine of each model, one for models that mean the same.

    `threads` of 0 leaves it to the engine how many it takes; `device` is where torch works, and
    `precision` how finely a CUDA device multiplies.

    Raises:
        ConfigError: there is no such model, it cannot be read, or what it needs is not installed.
    """
    made: dict[str, ModelEngine] = {}
    out: dict[str, ModelEngine] = {}
    for model in dict.fromkeys(models):
        meant = _best() if model == "auto" else model
        if meant not in made:
            made[meant] = _make(meant, threads, device, precision)
        out[model] = made[meant]
        log.info("model %s: %s on %s", model, made[meant].name, made[meant].device)
    return out


def built_in_checkpoint() -> Path:
    """The folder of the built-in model's checkpoint."""
    return Path(str(files("openanomaly.models.chronos_bolt_nano")))


def _best() -> str:
    """What `auto` means here: the built-in model, unless nothing is installed that runs it."""
    runs = _has_torch() or importlib.util.find_spec("onnxruntime") is not None
    return BUILT_IN if runs else "statistical"


def _make(model: str, threads: int, device: str, precision: Precision) -> ModelEngine:
    if model == BUILT_IN:
        if _wants_gpu(device) or importlib.util.find_spec("onnxruntime") is None:
            return _chronos(str(built_in_checkpoint()), threads, device, precision, BUILT_IN)
        return _onnx(built_in_checkpoint() / "model.onnx", threads)
    for found in entry_points(group=ENGINES_GROUP, name=model):
        engine: ModelEngine = found.load()(threads=threads, device=device)
        return engine
    if model == "statistical" or model.endswith(".onnx"):
        if device not in ("auto", "cpu"):
            log.warning("model %s runs on the processor, whatever inference.device=%s says", model, device)
        return StatisticalAdapter(threads) if model == "statistical" else _onnx(Path(model), threads)
    return _chronos(model, threads, device, precision)


def _wants_gpu(device: str) -> bool:
    """Whether torch is to run the built-in model: where it is told to, or finds a GPU that it can use.

    Raises:
        ConfigError: it is told to, and is not installed.
    """
    if device not in ("auto", "cpu"):
        if not _has_torch():
            raise ConfigError(f"inference.device={device} needs torch: install the extra `chronos`")
        return True
    if device == "cpu" or not _has_torch() or not any(map(os.path.exists, _GPU)):
        return False
    from openanomaly.adapters.chronos import has_gpu  # takes seconds, so only where a device is

    return has_gpu()


def _has_torch() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in ("torch", "chronos"))


def _chronos(model: str, threads: int, device: str, precision: Precision, name: str = "") -> ModelEngine:
    from openanomaly.adapters.chronos import ChronosAdapter

    return ChronosAdapter(model, device=device, threads=threads, name=name, precision=precision)


def _onnx(path: Path, threads: int) -> ModelEngine:
    try:
        from openanomaly.adapters.onnx import OnnxAdapter
    except ImportError as exc:
        raise ConfigError(f"model {path} needs onnxruntime, which does not load here: {exc}") from exc
    return OnnxAdapter(path, threads)
