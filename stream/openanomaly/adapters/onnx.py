"""The engine that runs on onnxruntime: the built-in model, and any Bolt that was exported."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.quantiles import PATHS, at_levels, mixed
from openanomaly.core.standard import standardise
from openanomaly.errors import ConfigError, ForecastError

# Its wheels report to their makers from 1.29 on, also on Linux, and begin with the import.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime as ort

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

_CHUNK = 32
"""Rows at a time: what a layer leaves for the next stays in the cache of one core (1.7 against 1.1
times the stock pipeline with chunks of 256)."""
_MEMORY = ("allocate memory", "bad allocation", "bad_alloc", "out of memory")


@dataclass(frozen=True, slots=True)
class Bolt:
    """What a graph says of itself, as `openanomaly export` wrote it.

    Attributes:
        name: of the checkpoint.
        context: most steps it looks at.
        patch: contexts have a multiple of so many steps.
        horizon: steps of one pass.
        levels: quantile levels of its output, ascending.
    """

    name: str
    context: int
    patch: int
    horizon: int
    levels: tuple[float, ...]

    @classmethod
    def of(cls, properties: dict[str, str]) -> "Bolt":
        found = {key: properties[f"openanomaly.{key}"] for key in ("context", "patch", "horizon")}
        levels = tuple(float(level) for level in properties["openanomaly.levels"].split(","))
        return cls(properties["openanomaly.name"], **{k: int(v) for k, v in found.items()}, levels=levels)


class OnnxAdapter:
    """A Chronos-Bolt graph on the processor.

    Contexts are brought to mean 0 and spread 1 in float64 before they go in, so that units and
    offsets cost no digits. A batch is cut into chunks that fit a core's cache, which the threads share.
    """

    fixed_shapes = False
    device = "cpu"

    def __init__(self, path: str | Path, threads: int = 0) -> None:
        """`threads` of 0 takes all but one of the processors that we may use: the rest of us needs one.

        Raises:
            ConfigError: the file cannot be read, or is not what `openanomaly export` writes.
        """
        self._session = _open(Path(path))
        try:
            self._bolt = Bolt.of(dict(self._session.get_modelmeta().custom_metadata_map))
        except (KeyError, ValueError) as exc:
            raise ConfigError(
                f"model {path}: not written by `openanomaly export` (no property {exc}); export it again"
            ) from exc
        self.name = self._bolt.name
        self.max_context = self._bolt.context
        self.horizon_step = self._bolt.horizon
        threads = threads or max(1, _processors() - 1)
        self._pool = ThreadPoolExecutor(threads, "onnx") if threads > 1 else None

    def predict(self, context: F32, horizon: int, quantiles: Sequence[float]) -> F32:
        cropped = _padded(_cropped(context, self._bolt), self._bolt.patch)
        z, loc, scale = standardise(cropped, np.isfinite(cropped))
        native = np.empty((len(z), horizon, len(self._bolt.levels)), np.float32)

        def work(at: int) -> None:
            native[at : at + _CHUNK] = self._chunk(z[at : at + _CHUNK], horizon)

        chunks = range(0, len(z), _CHUNK)
        for _ in map(work, chunks) if self._pool is None else self._pool.map(work, chunks):
            pass
        found = at_levels(native, self._bolt.levels, quantiles)
        top = float(np.finfo(np.float32).max)
        out: F64 = found * scale[:, None, None] + loc[:, None, None]
        return np.clip(out, -top, top).astype(np.float32)

    def _chunk(self, z: F32, horizon: int) -> F32:
        """(B, H, K) in the units of `z`.

        Beyond one pass the model goes on from nine of its quantiles, each as if it had happened, as
        Chronos' own pipelines do.
        """
        levels, patch = self._bolt.levels, self._bolt.patch
        found = [self._run(z).transpose(0, 2, 1)]
        paths = z[:, None].repeat(len(PATHS), axis=1) if horizon > self._bolt.horizon else z[:, None]
        while len(found) * self._bolt.horizon < horizon:
            path = at_levels(found[-1], levels, PATHS).transpose(0, 2, 1)
            paths = np.concatenate([paths, path], axis=2)[:, :, -self._bolt.context :]
            flat = _padded(paths.reshape(-1, paths.shape[2]), patch)
            ahead = np.concatenate([self._run(flat[i : i + _CHUNK]) for i in range(0, len(flat), _CHUNK)])
            found.append(mixed(ahead.reshape(len(z), len(PATHS), len(levels), -1), levels))
        return np.concatenate(found, axis=1)[:, :horizon]

    def _run(self, z: F32) -> F32:
        try:
            out: F32 = self._session.run(None, {"context": z})[0]
        except Exception as exc:  # onnxruntime's classes have no base of their own
            words = str(exc)
            reason = "memory" if any(word in words for word in _MEMORY) else "engine"
            raise ForecastError(f"{self.name}: {words}", reason) from exc
        return out


def _processors() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS


def _open(path: Path) -> Any:
    options = ort.SessionOptions()
    # Chunks run side by side; threads inside of one would only wait for each other.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    except OSError as exc:
        raise ConfigError(f"cannot read model {path}: {exc.strerror}") from exc
    except Exception as exc:
        raise ConfigError(
            f"model {path} is no ONNX graph that onnxruntime {ort.__version__} runs: {exc}"
        ) from exc


def _cropped(context: F32, bolt: Bolt) -> F32:
    """The newest steps that the model looks at, without those that no row knows."""
    context = context[:, -bolt.context :]
    known = np.isfinite(context).any(axis=0)
    first = int(known.argmax()) if known.any() else context.shape[1] - 1
    return context[:, first:]


def _padded(context: F32, patch: int) -> F32:
    """A multiple of the patch: missing steps before the first one."""
    more = -context.shape[1] % patch
    return np.pad(context, ((0, 0), (more, 0)), constant_values=np.nan) if more else context
