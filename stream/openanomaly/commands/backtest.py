"""`openanomaly backtest`: what the product would have said of a recording."""

import argparse
from pathlib import Path
from typing import Any

from openanomaly.adapters.recordings import times
from openanomaly.adapters.recordings.times import TimeError
from openanomaly.commands.backtest_pipeline import seconds


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of `openanomaly`."""
    parser = commands.add_parser(
        "backtest",
        help="what would have been said of a recording: CSV, Parquet, or a database",
        description="Scores every step of a recording as the stream would have done. See docs/backtest.md.",
    )
    parser.add_argument(
        "input", nargs="?", type=Path, metavar="FILE", help="CSV or Parquet, or a folder of them"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="scores, as .csv or .parquet")
    parser.add_argument("--report", type=Path, metavar="FILE.html", help="a page to look at, all in one file")
    parser.add_argument("--labels", type=Path, metavar="FILE", help="CSV of what is known to be anomalous")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    how = parser.add_argument_group("how it is scored")
    how.add_argument("--step", type=seconds, metavar="60s", help="without it, as samples are spaced")
    how.add_argument("--model", help="as in a pipeline: auto, statistical, FILE.onnx, a checkpoint")
    how.add_argument(
        "--set", metavar="NAME=VALUE", action="append", default=[], help="any option of a pipeline"
    )
    how.add_argument("--config", metavar="FILE", help="settings file with pipelines")
    how.add_argument("--pipeline", metavar="NAME", help="the one of its pipelines that is meant")
    how.add_argument("--threads", type=int, default=0, help="of the model; 0 lets it choose")
    asked = parser.add_argument_group("from a database instead of files")
    asked.add_argument("--tsdb", metavar="URL", help="its address, before /api/v1/query_range; or pull.url")
    asked.add_argument("--query", metavar="PROMQL", help="in the place of a pipeline's query or selector")
    asked.add_argument("--start", type=_moment, metavar="TIME", help="Unix time or ISO 8601")
    asked.add_argument("--end", type=_moment, metavar="TIME", help="without it, now")


def main(options: argparse.Namespace) -> int:
    """Run the command; its exit status.

    Raises:
        ConfigError: an option or a file is wrong.
    """
    from openanomaly.commands import backtest_run  # heavy: models, and what reads files

    return backtest_run.main(options)


def _moment(text: str) -> int:
    try:
        return int(times.parse([text], times.style_of(text))[0])
    except TimeError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc
