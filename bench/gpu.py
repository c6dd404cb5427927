"""Forecasts per second on a CUDA device, beside Chronos' own pipeline and the device's matrix limit.

    uv run --all-extras bench/gpu.py [--rounds 5] [--models bolt-small chronos-2] [--batches 16 64 256 1024]

Checkpoints have the sizes of the published ones and random weights, which take as long; `--models` also
takes folders and names on the hub. Contexts have 512 steps, forecasts 64, the built-in model's own
lengths. In every round the engine with TF32, with float32, and the pipeline of chronos-forecasting, at its
float32, take the same batch in turn; ratios are medians of the rounds.

`of_limit` is the share of what the device makes of a product of two matrices of 8,192 x 8,192 in the same
precision and run, counting the model's products alone. `error` is how far TF32 is from
float32, in widths of the band between the outermost levels of the forecast: mean and maximum.
The last line is one JSON object; `limit` is the target of `of_limit` in float32 at the largest batch.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from chronos import BaseChronosPipeline
from chronos.chronos2.config import Chronos2CoreConfig
from chronos.chronos2.model import Chronos2Model
from chronos.chronos_bolt import ChronosBoltModelForForecasting
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode
from transformers import T5Config

from inference import CONTEXT, HORIZON, contexts
from openanomaly.adapters.chronos import ChronosAdapter
from openanomaly.adapters.engines import built_in_checkpoint
from openanomaly.core.scoring.levels import LEVELS

F32 = NDArray[np.float32]
LIMIT = 0.4
SIDE = 8192
ERROR_ROWS = 512
LEAST_S = 0.3  # of one measurement
SIZES = {  # d_model, d_ff, layers, heads
    "bolt-tiny": (256, 1024, 4, 4),
    "bolt-mini": (384, 1536, 4, 8),
    "bolt-small": (512, 2048, 6, 8),
    "bolt-base": (768, 3072, 12, 12),
    "chronos-2": (768, 3072, 12, 12),
}
NANO = "chronos-bolt-nano"


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--models", nargs="+", default=[NANO, *SIZES])
    options.add_argument("--batches", nargs="+", type=int, default=[16, 64, 256, 1024])
    o = options.parse_args()
    if not torch.cuda.is_available():
        sys.exit("torch finds no CUDA device here")
    figures: dict[str, Any] = {
        "limit": LIMIT,
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
    }
    limits = {name: matrix_limit(name == "tf32") for name in ("float32", "tf32")}
    figures["tflop_per_s"] = {name: round(limit / 1e12, 1) for name, limit in limits.items()}
    print(figures, flush=True)
    for name in o.models:
        with tempfile.TemporaryDirectory() as folder:
            figures[name] = measure(checkpoint(name, Path(folder)), o.batches, o.rounds, limits)
        print(f"{name}: {figures[name]}", flush=True)
    print(json.dumps(figures))


def measure(model: str, batches: list[int], rounds: int, limits: dict[str, float]) -> dict[str, Any]:
    engines = {p: ChronosAdapter(model, device="cuda", precision=p) for p in ("tf32", "float32")}  # type: ignore[arg-type]
    pipeline = BaseChronosPipeline.from_pretrained(model, dtype=torch.float32, device_map="cuda")
    family = type(pipeline).__name__

    def stock(batch: F32) -> object:
        torch.backends.cuda.matmul.allow_tf32 = False
        asked: dict[str, Any] = {"prediction_length": HORIZON, "quantile_levels": list(LEVELS)}
        if family == "Chronos2Pipeline":
            return pipeline.predict_quantiles(list(torch.from_numpy(batch)), batch_size=len(batch), **asked)
        return pipeline.predict_quantiles(torch.from_numpy(batch), **asked)

    peers: dict[str, Callable[[F32], object]] = {
        **{p: lambda batch, e=e: e.predict(batch, HORIZON, LEVELS) for p, e in engines.items()},
        "stock": stock,
    }
    flop = flop_per_row(engines["float32"])
    out: dict[str, Any] = {"gflop": round(flop / 1e9, 3), "error": error(engines), "rows": {}}
    for size in batches:
        batch = contexts(size)
        for predict in peers.values():
            for _ in range(3):  # a shape that came before is recorded, and then replayed
                predict(batch)
        found: dict[str, list[float]] = {name: [] for name in peers}
        for i in range(rounds):
            for name in [*peers][i % 3 :] + [*peers][: i % 3]:
                found[name].append(rate(peers[name], batch))
        row: dict[str, Any] = {f"{name}_per_s": round(statistics.median(found[name])) for name in peers}
        for name in engines:
            ratios = [a / b for a, b in zip(found[name], found["stock"], strict=True)]
            row[f"{name}_over_stock"] = round(statistics.median(ratios), 2)
            row[f"{name}_of_limit"] = round(statistics.median(found[name]) * flop / limits[name], 3)
        out["rows"][size] = row
    return out


def rate(predict: Callable[[F32], object], batch: F32) -> float:
    """Rows per second; answers lie in the memory of this machine, so nothing is left under way."""
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < LEAST_S:
        predict(batch)
        calls += 1
    torch.cuda.synchronize()
    return calls * len(batch) / (time.perf_counter() - start)


def error(engines: dict[str, ChronosAdapter]) -> dict[str, float]:
    batch = contexts(ERROR_ROWS, seed=7)
    tf32, float32 = (engines[name].predict(batch, HORIZON, LEVELS).astype(np.float64) for name in engines)
    band = float32[..., -1:] - float32[..., :1]
    off = np.abs(tf32 - float32) / np.maximum(band, np.median(band) * 0.01)
    return {"mean": round(float(off.mean()), 6), "max": round(float(off.max()), 5)}


def flop_per_row(engine: ChronosAdapter) -> float:
    rows = 16
    z = torch.zeros(rows, CONTEXT, device="cuda")
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        engine._family.step(z, HORIZON)  # type: ignore[union-attr]
    return float(counter.get_total_flops()) / rows


def matrix_limit(tf32: bool) -> float:
    """FLOP per second of one large product, the best of many."""
    torch.backends.cuda.matmul.allow_tf32 = tf32
    a, b = (torch.randn(SIDE, SIDE, device="cuda") for _ in range(2))
    best = float("inf")
    for _ in range(12):
        torch.cuda.synchronize()
        start = time.perf_counter()
        a @ b
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return float(2 * SIDE**3 / best)


def checkpoint(name: str, folder: Path) -> str:
    """A folder of a checkpoint of that size, or what `name` means by itself."""
    if name == NANO:
        return str(built_in_checkpoint())
    if name not in SIZES:
        return name
    transformers.utils.logging.disable_progress_bar()
    d_model, d_ff, layers, heads = SIZES[name]
    shape = {
        "d_model": d_model,
        "d_kv": d_model // heads,
        "d_ff": d_ff,
        "num_layers": layers,
        "num_heads": heads,
    }
    patches = {"input_patch_size": 16, "input_patch_stride": 16, "use_reg_token": True}
    config: Any
    if name == "chronos-2":
        config, model = Chronos2CoreConfig(**shape), Chronos2Model
        config.architectures, config.chronos_pipeline_class = ["Chronos2Model"], "Chronos2Pipeline"
        levels = [0.01, *(round(0.05 * i, 2) for i in range(1, 20)), 0.99]
        config.chronos_config = {
            **patches,
            "context_length": 8192,
            "output_patch_size": 16,
            "max_output_patches": 64,
            "quantiles": levels,
            "use_arcsinh": True,
        }
    else:
        config, model = T5Config(**shape, **_T5), ChronosBoltModelForForecasting
        config.architectures = ["ChronosBoltModelForForecasting"]
        config.chronos_pipeline_class = "ChronosBoltPipeline"
        config.chronos_config = {
            **patches,
            "context_length": 2048,
            "prediction_length": 64,
            "quantiles": [round(0.1 * i, 1) for i in range(1, 10)],
        }
    torch.manual_seed(7)
    model(config).eval().save_pretrained(folder)
    return str(folder)


_T5 = {
    "initializer_factor": 0.05,
    "feed_forward_proj": "relu",
    "is_encoder_decoder": True,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
    "vocab_size": 2,
}


if __name__ == "__main__":
    main()
