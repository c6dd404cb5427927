"""The engine for Chronos checkpoints: T5, Bolt and Chronos-2, on torch."""

import logging
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openanomaly.adapters.chronos_gpu import GpuPass, is_memory
from openanomaly.core.ports.model_engine import DeviceMemory, Precision
from openanomaly.core.quantiles import PATHS, at_levels, beyond, mixed
from openanomaly.core.standard import standardise
from openanomaly.errors import ConfigError, ForecastError

log = logging.getLogger(__name__)

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Tensor = Any  # torch takes four seconds to import: nobody who merely imports this file shall wait for it

_SEED = 20_170_607


class ChronosAdapter:
    """Forecasts of a Chronos checkpoint, each row by itself.

    Rows are standardised in float64 before the model sees them, as it would do in float32: values
    of any size pass, and a constant stays what it is. The model runs in float32 on every device, where
    a GPU may multiply with the eleven bits of TF32: the eight of bfloat16 are not finer than the
    deviations that are to be found. Levels that the checkpoint lacks are made of those it has by
    `core.quantiles`.
    """

    fixed_shapes = False

    def __init__(
        self,
        model: str,
        *,
        device: str = "auto",
        threads: int = 0,
        name: str = "",
        precision: Precision = "tf32",
    ) -> None:
        """Load `model`, a folder or a name on the Hugging Face hub.

        Args:
            model: what the pipeline's setting `model` says.
            device: auto (CUDA if there is one), cpu, cuda, cuda:N or mps.
            threads: of torch, for the whole process; 0 leaves them as they are.
            name: what logs and metrics call it; `model` without one.
            precision: of products on a CUDA device.

        Raises:
            ConfigError: the extra, the checkpoint or the device is missing, or cannot be used.
        """
        self.name = name or model
        self._torch = _import_torch()
        if threads:
            self._torch.set_num_threads(threads)
        self._device = _device(self._torch, device)
        self.device = str(self._device)
        self._has_tf32 = precision == "tf32"
        self._family = _load(self._torch, model, self._device)
        self._pass: GpuPass | None = None
        if self._device.type == "cuda" and isinstance(self._family, _Quantiles):
            self._pass = GpuPass(self._torch, self._family, self._device, self.name)
        self.max_context = self._family.max_context
        self.horizon_step = self._family.horizon_step
        self._told: set[float] = set()  # levels of which the log said that they are extrapolated

    def predict(self, context: F32, horizon: int, quantiles: Sequence[float]) -> F32:
        self._tell_beyond(quantiles)
        out = np.empty((len(context), horizon, len(quantiles)), np.float32)
        try:
            context = context[:, -self.max_context :]
            forecast: Callable[[F32, int, Sequence[float]], F32] = self._chunk
            if self._pass is not None and horizon <= self._family.horizon:
                forecast, context = self._pass.forecast, self._pass.fit(context)
            rows = self._rows(context.shape[1], horizon)
            if self._device.type == "cuda":
                # Torch has one such switch for all; another engine may have turned it.
                self._torch.backends.cuda.matmul.allow_tf32 = self._has_tf32
            with self._torch.inference_mode():
                for at in range(0, len(context), rows):
                    out[at : at + rows] = forecast(context[at : at + rows], horizon, quantiles)
        except Exception as exc:
            raise self._failure(exc) from exc
        return out

    def _rows(self, steps: int, horizon: int) -> int:
        """How many contexts of so many steps go into one pass."""
        family = self._family
        if horizon > family.horizon:  # each becomes several, which grow longer
            longest = min(self.max_context, steps + horizon)
            rows = family.rows if self._device.type == "cpu" else family.rows_gpu(longest)
            return max(1, rows // family.paths)
        if self._device.type == "cpu":
            return family.rows
        rows = family.rows_gpu(steps)
        return rows if self._pass is None else self._pass.rows(rows)

    def device_memory(self) -> DeviceMemory | None:
        if self._device.type != "cuda":
            return None
        cuda = self._torch.cuda
        free, total = cuda.mem_get_info(self._device)
        return DeviceMemory(
            total=total,
            free=free,
            reserved=cuda.memory_reserved(self._device),
            allocated=cuda.memory_allocated(self._device),
        )

    def _chunk(self, context: F32, horizon: int, quantiles: Sequence[float]) -> F32:
        seen = np.isfinite(context)
        first = seen.any(axis=0).argmax()  # steps that nobody knows cost time and change nothing
        z, location, scale = standardise(context[:, first:], seen[:, first:])
        known = self._family.forecast(self._torch.from_numpy(z).to(self._device), horizon)
        have = known.transpose(1, 2).cpu().numpy()
        found = at_levels(have, self._family.levels, quantiles) * scale[:, None, None]
        found += location[:, None, None]
        top = np.finfo(np.float32).max
        out: F32 = np.clip(found, -top, top).astype(np.float32)
        out[~np.isfinite(have).all(axis=(1, 2))] = np.nan  # who called drops such a row, and no other
        return out

    def _tell_beyond(self, quantiles: Sequence[float]) -> None:
        have = self._family.levels
        new = sorted(set(beyond(have, quantiles)) - self._told)
        if new:
            levels = ", ".join(f"{level:g}" for level in new)
            log.info("model %s has levels %g to %g; extrapolated: %s", self.name, have[0], have[-1], levels)
            self._told.update(new)

    def _failure(self, exc: Exception) -> ForecastError:
        memory = is_memory(self._torch, exc)
        if memory:
            # The frames of the failed call hold the tensors that were too many.
            traceback.clear_frames(exc.__traceback__)
            if self._pass is not None:
                self._pass.release()
            if self._device.type == "cuda":
                self._torch.cuda.empty_cache()
        message = f"model {self.name} on {self._device}: {type(exc).__name__}: {exc}"
        return ForecastError(message, "memory" if memory else "engine")


class _Quantiles:
    """What Bolt and Chronos-2 have in common: all levels of a stretch of steps at once."""

    rows = 32  # at a time: what a layer leaves for the next stays in the processor's cache
    paths = len(PATHS)
    rows_gpu_at_512 = 1024

    def __init__(self, torch: Any, pipeline: Any) -> None:
        self._torch = torch
        self._model = pipeline.model
        self.levels = tuple(float(p) for p in pipeline.quantiles)
        self.max_context: int = pipeline.model_context_length
        self.horizon: int = pipeline.model_prediction_length
        self.horizon_step = self.horizon

    def rows_gpu(self, steps: int) -> int:
        """At a time, of so many steps: enough to keep a GPU busy, and less than a gigabyte of a layer."""
        return max(1, min(self.rows_gpu_at_512, self.rows_gpu_at_512 * 512 // steps))

    def step(self, z: Tensor, steps: int) -> Tensor:
        """(b, T) -> (b, K, steps), no more steps than the model's own horizon."""
        return self._model(context=z).quantile_preds[:, :, :steps]

    def forecast(self, z: Tensor, horizon: int) -> Tensor:
        """(b, T) -> (b, K, H).

        Beyond its own horizon the model goes on from nine of its quantiles, each as if it had
        happened, and their nine forecasts are one mixture: as the pipelines of Chronos do, but
        with the probabilities that the levels stand for, which need not be spaced evenly.
        """
        torch, b = self._torch, len(z)
        known = self.step(z, min(horizon, self.horizon))
        blocks, left = [known], horizon - known.shape[2]
        z = z[:, None].expand(-1, self.paths, -1)
        while left:
            path = at_levels(known.transpose(1, 2).cpu().numpy(), self.levels, PATHS)
            path = torch.from_numpy(path).to(z).transpose(1, 2)
            z = torch.cat([z, path], dim=2)[:, :, -self.max_context :]
            ahead = self.step(z.reshape(b * self.paths, -1), min(left, self.horizon))
            ahead = ahead.reshape(b, self.paths, len(self.levels), -1)
            mixture = mixed(ahead.cpu().numpy(), self.levels)
            known = torch.from_numpy(mixture).to(z).transpose(1, 2)
            blocks.append(known)
            left -= known.shape[2]
        return torch.cat(blocks, dim=2)


class _Chronos2(_Quantiles):
    """Patches of the future attend to each other, and rows to the rows of their group."""

    # The mask of the groups, and the attention it masks, are rows x rows for every patch.
    rows_gpu_at_512 = 256

    def __init__(self, torch: Any, pipeline: Any) -> None:
        super().__init__(torch, pipeline)
        self.horizon_step: int = pipeline.model_output_patch_size

    def step(self, z: Tensor, steps: int) -> Tensor:
        # Without ids of groups every row is a group by itself.
        patches = -(-steps // self.horizon_step)
        return self._model(context=z, num_output_patches=patches).quantile_preds[:, :, :steps]


class _T5:
    """Values drawn one after the other: a row's forecast is the spread of its sample paths.

    Chronos draws with torch's global generator, so that a row's paths would depend on the rows
    before it and on every earlier call. Here path number s of step t takes the same share of its
    distribution in every row and call, and over the paths the shares are spread evenly (a latin
    hypercube), which also makes few paths do the work of many.
    """

    rows = 32  # times the number of paths, each with a cache of its own
    horizon_step = 1

    def __init__(self, torch: Any, pipeline: Any) -> None:
        self._torch = torch
        self._tokenizer = pipeline.tokenizer
        self._model = pipeline.model.model
        self._config = pipeline.model.config
        self.paths: int = self._config.num_samples
        self.levels = tuple((i + 0.5) / self.paths for i in range(self.paths))
        self.max_context: int = pipeline.model_context_length
        self.horizon: int = pipeline.model_prediction_length

    def rows_gpu(self, steps: int) -> int:
        return self.rows

    def forecast(self, z: Tensor, horizon: int) -> Tensor:
        """(b, T) -> (b, K, H), a path for a level: who asks sorts them.

        Beyond the model's own horizon each path goes on by itself. (Chronos goes on from the
        median of all, so that their spread would begin at nothing again.)
        """
        torch, b = self._torch, len(z)
        shares = _even_shares(self.paths, horizon)
        paths = self._draw(z, shares[:, : self.horizon], self.paths)
        while paths.shape[2] < horizon:
            long = torch.cat([z[:, None].expand(-1, self.paths, -1), paths], dim=2)
            ahead = shares[:, paths.shape[2] :][:, : self.horizon]
            more = self._draw(long.reshape(b * self.paths, -1), ahead, 1)
            paths = torch.cat([paths, more.reshape(b, self.paths, -1)], dim=2)
        return paths

    def _draw(self, z: Tensor, shares: F32, each: int) -> Tensor:
        """(b, T) -> (b, each, steps) paths; they take their turns in the rows of `shares`."""
        from transformers import GenerationConfig, LogitsProcessorList

        config, steps = self._config, shares.shape[1]
        tokens, mask, state = self._tokenizer.context_input_transform(z.cpu())
        # The last word is multinomial's, on a distribution of one token; nobody else shall notice.
        with self._torch.random.fork_rng([z.device] if z.device.type == "cuda" else []):
            found = self._model.generate(
                input_ids=tokens.to(z.device),
                attention_mask=mask.to(z.device),
                generation_config=GenerationConfig(
                    min_new_tokens=steps,
                    max_new_tokens=steps,
                    do_sample=True,
                    num_return_sequences=each,
                    eos_token_id=config.eos_token_id,
                    pad_token_id=config.pad_token_id,
                    temperature=1.0,  # `_Draw` has done with temperature and tops
                    top_k=0,
                    top_p=1.0,
                ),
                logits_processor=LogitsProcessorList([_Draw(self._torch, config, shares)]),
            )
        paths = found[:, -steps:].reshape(len(z), each, steps)
        return self._tokenizer.output_transform(paths.cpu(), state).to(z)


class _Draw:
    """Leaves one token of each path: the one at its share of the distribution."""

    def __init__(self, torch: Any, config: Any, shares: F32) -> None:
        from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

        self._torch = torch
        self._shares = shares
        self._step = 0
        self._warpers: list[Any] = []
        if config.temperature != 1.0:
            self._warpers.append(TemperatureLogitsWarper(config.temperature))
        if config.top_k:
            self._warpers.append(TopKLogitsWarper(config.top_k))
        if config.top_p < 1.0:
            self._warpers.append(TopPLogitsWarper(config.top_p))

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """(b x S, V) logits -> the same, minus infinity but for one token a row."""
        for warper in self._warpers:
            scores = warper(input_ids, scores)
        # Tokens are in the order of their values, so a rounding error moves a draw by one bin.
        below = scores.float().softmax(dim=-1).cumsum(dim=-1)
        share = self._torch.tensor(self._shares[:, self._step]).to(below)
        share = share.repeat(len(scores) // len(share))[:, None] * below[:, -1:]
        self._step += 1
        token = self._torch.searchsorted(below, share, right=True).clamp(max=scores.shape[1] - 1)
        return self._torch.full_like(scores, -np.inf).scatter(1, token, 0.0)


_FAMILIES: dict[str, type[_T5 | _Quantiles]] = {
    "ChronosPipeline": _T5,
    "ChronosBoltPipeline": _Quantiles,
    "Chronos2Pipeline": _Chronos2,
}


def has_gpu() -> bool:
    """Whether torch finds a GPU that it can use."""
    return bool(_import_torch().cuda.is_available())


def _import_torch() -> Any:
    try:
        import chronos  # noqa: F401
        import torch
    except ImportError as exc:
        raise ConfigError(
            f"Chronos checkpoints need torch and chronos-forecasting ({exc}): "
            "pip install 'openanomaly[chronos]', or uv run --extra chronos"
        ) from exc
    return torch


def _device(torch: Any, device: str) -> Any:
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
    except RuntimeError as exc:
        raise ConfigError(f"device {device!r}: use auto, cpu, cuda, cuda:N or mps") from exc
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device {device!r}: torch sees {torch.cuda.device_count()} CUDA devices")
    if found.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(f"device {device!r}: torch sees no MPS device")
    return found


def _load(torch: Any, model: str, device: Any) -> _T5 | _Quantiles:
    import transformers
    from chronos import BaseChronosPipeline

    # What they have to say about a checkpoint is said below, in one line.
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    path = Path(model).expanduser()
    local = path.is_dir()  # then nothing is asked of the hub, whatever is missing in the folder
    where = {"pretrained_model_name_or_path": str(path) if local else model, "local_files_only": local}
    try:
        pipeline = BaseChronosPipeline.from_pretrained(**where, dtype=torch.float32)
        # Weights that are not there are random numbers to transformers, and a matter for a warning.
        _, found = type(pipeline.inner_model).from_pretrained(**where, output_loading_info=True)
        if found["missing_keys"]:
            raise ValueError(f"weights are missing: {', '.join(sorted(found['missing_keys'])[:3])}")
        pipeline.inner_model.to(device).eval()
        return _FAMILIES[type(pipeline).__name__](torch, pipeline)
    except Exception as exc:
        # The libraries raise anything. Whatever it is, it is this checkpoint.
        kind = "the folder" if local else "no folder, so a name on the hub"
        first = next(iter(str(exc).strip().splitlines()), "")
        raise ConfigError(
            f"cannot load model {model!r} ({kind}) as a Chronos checkpoint: {type(exc).__name__}: {first}; "
            "check `model` of the pipelines"
        ) from exc


def _even_shares(paths: int, steps: int) -> F32:
    """(S, steps) numbers in (0, 1): at each step one in every S-th part, in any order.

    The first steps are the same whatever comes after: a short forecast begins a long one.
    """
    chance = np.random.default_rng(_SEED).random((steps, 2, paths))
    order = np.argsort(chance[:, 0], axis=1)
    return ((order + chance[:, 1]) / paths).clip(1e-6, 1 - 1e-6).astype(np.float32).T
