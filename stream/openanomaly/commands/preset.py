"""`openanomaly preset`: the pipelines that come with the product."""

import argparse
from typing import Any

from openanomaly import presets


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of `openanomaly`."""
    parser = commands.add_parser(
        "preset",
        help="list and show the pipelines that come with the product",
        description="Pipelines for well-known exporters. `openanomaly run --preset NAME` runs them, and so "
        "does `presets: [NAME]` in the settings.",
    )
    parts = parser.add_subparsers(dest="part", required=True, metavar="list|show")
    parts.add_parser("list", help="names, and how many pipelines each has")
    show = parts.add_parser("show", help="a preset as YAML, with the reason of each pipeline")
    show.add_argument("name", metavar="NAME")


def main(options: argparse.Namespace) -> int:
    """Print; the exit status."""
    if options.part == "show":
        print(presets.text(options.name), end="")
        return 0
    width = max(map(len, presets.names()))
    for name in presets.names():
        about = presets.text(name).partition("\n")[0].removeprefix("# ").partition(": ")[2]
        print(f"{name:{width}}  {len(presets.pipelines(name)):2} pipelines  {about}")
    return 0
