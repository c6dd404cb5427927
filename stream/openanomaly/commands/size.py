"""`openanomaly size`: how large an installation is, for one or several numbers of series."""

import argparse
import re
from collections.abc import Sequence
from typing import Any

from openanomaly.broker.topics import topics
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.sizing import Fleet, Rates, Retentions, Size, size
from openanomaly.settings.roles import WindowSettings
from openanomaly.settings.servers import SinkSettings

_DESCRIPTION = """\
Cores, memory, broker and target for a number of series, computed from the rates of bench/README.md (`--rates`
prints them). Measured were two cores of one machine: measure yours with the same commands.
"""
_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of `openanomaly`."""
    parser = commands.add_parser(
        "size", help="cores, memory, broker and target for a number of series", description=_DESCRIPTION
    )
    parser.add_argument(
        "--series", type=_count, nargs="+", default=[100_000], metavar="N", help="that are watched"
    )
    parser.add_argument("--scrape", type=_seconds, default=15.0, help="seconds between samples; %(default)g")
    parser.add_argument("--step", type=_seconds, default=60.0, help="seconds of a step; %(default)g")
    parser.add_argument("--context", type=_count, default=512, help="steps of a window; %(default)d")
    parser.add_argument("--forecast-every", type=_count, default=16, help="steps; %(default)d")
    parser.add_argument(
        "--emit", choices=("auto", "all", "episodes"), default="auto", help="as sink.emit; %(default)s"
    )
    parser.add_argument("--outputs", type=int, choices=range(1, 6), default=1, help="series of each score")
    parser.add_argument("--replication", type=_count, default=3, help="of topics on Kafka; %(default)d")
    parser.add_argument(
        "--use", type=_share, default=0.5, help="share of a core that normal life may take; %(default)g"
    )
    parser.add_argument(
        "--engine-rate",
        type=_seconds,
        metavar="N",
        help="forecasts a second of your engine, such as a GPU with your checkpoint (bench/inference.py)",
    )
    parser.add_argument("--rates", action="store_true", help="print what sizes are computed from, and end")


def main(options: argparse.Namespace) -> int:
    """Print a table in Markdown; the exit status."""
    if options.rates:
        rows = [("figure", "value", "measured by")]
        rows += [(each.what, f"{each.value:,.12g}", f"bench/{each.bench}") for each in Rates.all()]
        print(table(rows))
        return 0
    pipeline = Pipeline(
        name="size", step_s=options.step, context=options.context, forecast_every=options.forecast_every
    )
    limit = SinkSettings().emit_all_limit
    fleets = [
        Fleet(
            series,
            options.scrape,
            pipeline,
            options.emit == "all" or (options.emit == "auto" and series <= limit),
            options.outputs,
            options.replication,
            options.use,
            options.engine_rate,
            WindowSettings().max_series,
        )
        for series in options.series
    ]
    kept = topics("size", 1)
    ages = [topic.retention_s or 0.0 for topic in (kept.samples, kept.due, kept.forecasts, kept.scores)]
    found = [size(fleet, Retentions(*ages)) for fleet in fleets]
    print(table([("series", *(f"{fleet.series:,}" for fleet in fleets)), *_rows(fleets, found)]))
    return 0


def _rows(fleets: Sequence[Fleet], sizes: Sequence[Size]) -> list[tuple[str, ...]]:
    rows = [
        ("samples a second", *(f"{s.samples_per_s:,.0f}" for s in sizes)),
        ("steps a second", *(f"{s.steps_per_s:,.0f}" for s in sizes)),
        ("forecasts a second", *(f"{s.forecasts_per_s:,.0f}" for s in sizes)),
        ("`broker.partitions`", *(str(s.partitions) for s in sizes)),
    ]
    for role in ("receiver", "window", "inference", "sink"):
        engine = "GPUs" if role == "inference" and fleets[0].engine_per_s else "cores"
        rows.append((f"{role}: busy {engine}", *(_cores(s.roles[role].cores) for s in sizes)))
        each = (s.roles[role] for s in sizes)
        rows.append((f"{role}: processes, memory of each", *(_processes(r) for r in each)))
    written = ("all" if fleet.is_all_emitted else "those of episodes" for fleet in fleets)
    return [
        *rows,
        ("Kafka: busy cores, before replication", *(_cores(s.kafka_cores) for s in sizes)),
        ("Kafka: written a day, before replication", *(_bytes(s.kafka_day_bytes) for s in sizes)),
        (f"Kafka: disk, {fleets[0].replication} copies", *(_bytes(s.kafka_disk_bytes) for s in sizes)),
        ("scores that are written", *written),
        ("target: series added", *(_series(s.target_series) for s in sizes)),
        ("target: samples a second", *(f"{s.target_samples_per_s:,.0f}" for s in sizes)),
    ]


def table(rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; the first row is its head."""
    head, *rest = rows
    lines = [head, ["---"] * len(head), *rest]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cores(value: float) -> str:
    if not value:
        return "0"
    return f"{value:.2f}" if value >= 0.01 else "< 0.01"


def _processes(role: Any) -> str:
    return f"{role.processes}, {_bytes(role.memory_bytes)}"


def _series(value: int | None) -> str:
    return "as many as have an episode" if value is None else f"{value:,}"


def _bytes(value: float) -> str:
    return f"{value / 1e9:,.1f} GB" if value >= 1e9 else f"{value / 1e6:,.0f} MB"


def _count(text: str) -> int:
    value = int(text.replace(",", "").replace("_", ""))
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def _seconds(text: str) -> float:
    found = re.fullmatch(r"([0-9.]+) ?(ms|s|m|h)?", text)
    if found is None or float(found[1]) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0, such as 15 or 1m")
    return float(found[1]) * _UNITS[found[2] or ""]


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return value
