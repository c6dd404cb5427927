"""Tiny checkpoints of each family of Chronos, with random weights."""

import atexit
import shutil
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
import transformers
from chronos.chronos2.config import Chronos2CoreConfig
from chronos.chronos2.model import Chronos2Model
from chronos.chronos_bolt import ChronosBoltModelForForecasting
from transformers import T5Config, T5ForConditionalGeneration

LEVELS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
CONTEXT, HORIZON = 512, 64

_SHAPE = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}


def bolt(folder: Path, **chronos: Any) -> Path:
    """A Chronos-Bolt of 2 layers with the levels 0.1 to 0.9."""

    config = T5Config(
        **_SHAPE,
        num_decoder_layers=2,
        initializer_factor=0.05,
        feed_forward_proj="relu",
        is_encoder_decoder=True,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
        vocab_size=2,
    )
    config.architectures = ["ChronosBoltModelForForecasting"]
    config.chronos_pipeline_class = "ChronosBoltPipeline"
    config.chronos_config = {
        "context_length": CONTEXT,
        "prediction_length": HORIZON,
        "input_patch_size": 16,
        "input_patch_stride": 16,
        "quantiles": LEVELS,
        "use_reg_token": True,
        **chronos,
    }
    return _save(ChronosBoltModelForForecasting, config, folder)


def chronos2(folder: Path, **chronos: Any) -> Path:
    """A Chronos-2 of 2 layers with four patches of 16 steps ahead."""

    config = Chronos2CoreConfig(**_SHAPE)
    config.architectures = ["Chronos2Model"]
    config.chronos_pipeline_class = "Chronos2Pipeline"
    config.chronos_config = {
        "context_length": CONTEXT,
        "output_patch_size": 16,
        "input_patch_size": 16,
        "input_patch_stride": 16,
        "quantiles": [0.01, 0.05, *LEVELS, 0.95, 0.99],
        "use_reg_token": True,
        "use_arcsinh": True,
        "max_output_patches": HORIZON // 16,
        **chronos,
    }
    return _save(Chronos2Model, config, folder)


def t5(folder: Path, **chronos: Any) -> Path:
    """A Chronos-T5 of one layer with 128 tokens, 128 steps of context and 4 sample paths."""

    tokens = 128
    config = T5Config(
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=1,
        num_decoder_layers=1,
        num_heads=2,
        feed_forward_proj="relu",
        is_encoder_decoder=True,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
        vocab_size=tokens,
    )
    config.architectures = ["T5ForConditionalGeneration"]
    config.chronos_config = {
        "tokenizer_class": "MeanScaleUniformBins",
        "tokenizer_kwargs": {"low_limit": -15.0, "high_limit": 15.0},
        "context_length": 128,
        "prediction_length": HORIZON,
        "n_tokens": tokens,
        "n_special_tokens": 2,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "use_eos_token": True,
        "model_type": "seq2seq",
        "num_samples": 4,
        "temperature": 1.0,
        "top_k": 50,
        "top_p": 1.0,
        **chronos,
    }
    return _save(T5ForConditionalGeneration, config, folder)


@cache
def tiny(family: Callable[[Path], Path]) -> str:
    """The folder of a checkpoint of `family`, made once a process."""
    folder = mkdtemp(prefix="openanomaly-checkpoint-")
    atexit.register(shutil.rmtree, folder)
    return str(family(Path(folder)))


TINY: dict[str, Callable[[], str]] = {f.__name__: partial(tiny, f) for f in (t5, bolt, chronos2)}
HAS_CUDA = torch.cuda.is_available()
"""Checkpoints are tried on a GPU too, where this machine has one."""


def _save(model: Any, config: Any, folder: Path) -> Path:
    transformers.utils.logging.disable_progress_bar()
    with torch.random.fork_rng([]):
        torch.manual_seed(7)
        model(config).eval().save_pretrained(folder)
    return folder
