"""`openanomaly export`: a Chronos-Bolt checkpoint as an ONNX file for the OnnxAdapter."""

import json
from pathlib import Path

import onnx
from safetensors import SafetensorError
from safetensors.numpy import load_file

from openanomaly.errors import ConfigError
from openanomaly.training.bolt_graph import BoltConfig, build


def export(checkpoint: Path, out: Path, name: str | None = None) -> None:
    """Write the graph of the checkpoint in folder `checkpoint` to the file `out`.

    Raises:
        ConfigError: the folder holds no checkpoint of Chronos-Bolt.
    """
    for file in ("config.json", "model.safetensors"):
        if not (checkpoint / file).is_file():
            raise ConfigError(f"{checkpoint} is no checkpoint: it has no {file}")
    try:
        config = BoltConfig.of(json.loads((checkpoint / "config.json").read_text()))
        weights = load_file(checkpoint / "model.safetensors")
    except (KeyError, ValueError, SafetensorError) as exc:
        raise ConfigError(f"{checkpoint} is no checkpoint of Chronos-Bolt: {exc!r}") from exc
    model = build(config, weights, name or checkpoint.resolve().name)
    # A worker may be about to read it: it is there as a whole, or not at all.
    part = out.with_name(out.name + ".part")
    onnx.save(model, str(part))
    part.rename(out)
