"""`openanomaly export CHECKPOINT FILE.onnx`: a Chronos-Bolt checkpoint for onnxruntime."""

import argparse
from pathlib import Path
from typing import Any

from openanomaly.errors import ConfigError


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of `openanomaly`."""
    parser = commands.add_parser(
        "export",
        help="make a Chronos-Bolt checkpoint a file that runs without torch",
        description="Write the graph of a Chronos-Bolt checkpoint for onnxruntime. A pipeline names the file "
        "as its model: `model: ./FILE.onnx`. Needs the extra `export`.",
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="folder of the checkpoint")
    parser.add_argument("out", type=Path, metavar="FILE.onnx", help="where the graph is written")
    parser.add_argument("--name", help="what logs and metrics call it; by default the folder's name")


def main(options: argparse.Namespace) -> int:
    """Export; the exit status.

    Raises:
        ConfigError: the folder holds no checkpoint of Chronos-Bolt, or an extra is missing.
    """
    try:
        from openanomaly.training.export import export
    except ImportError as exc:
        raise ConfigError(f"export needs the extra `export` (`uv run --extra export ...`): {exc}") from exc
    if options.out.suffix != ".onnx":
        raise ConfigError(f"{options.out}: the name must end in .onnx, or a pipeline takes it for a folder")
    try:
        export(options.checkpoint, options.out, options.name)
    except OSError as exc:
        raise ConfigError(f"cannot write {options.out}: {exc.strerror}") from exc
    print(f"{options.out}: {options.out.stat().st_size:,} bytes")
    return 0
