"""`openanomaly preset`: the pipelines, dashboards and alert rules that come with the product."""

import argparse
import json
from typing import Any

import yaml

from openanomaly import presets


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of `openanomaly`."""
    parser = commands.add_parser(
        "preset",
        help="list and print the pipelines, dashboards and alert rules that come with the product",
        description="Pipelines for well-known exporters. `openanomaly run --preset NAME` runs them, and so "
        "does `presets: [NAME]` in the settings. Each has a dashboard and alert rules; those of the names "
        "`scores` and `health` are for everybody.",
    )
    parts = parser.add_subparsers(dest="part", required=True, metavar="list|show|dashboard|alerts")
    parts.add_parser("list", help="names, and what each has")
    texts = {
        "show": "pipelines as YAML, with the reason of each",
        "dashboard": "a dashboard as JSON, to import in Grafana or to put into a provisioned folder",
        "alerts": "rules as YAML, for `rule_files` of Prometheus or `-rule` of vmalert",
    }
    for part, text in texts.items():
        parts.add_parser(part, help=text, description=text).add_argument("name", metavar="NAME")


def main(options: argparse.Namespace) -> int:
    """Print; the exit status."""
    if options.part == "list":
        _list()
        return 0
    printed = {"show": presets.text, "dashboard": presets.dashboard, "alerts": presets.alerts}
    print(printed[options.part](options.name), end="")
    return 0


def _list() -> None:
    everything = (*presets.names(), *presets.without_pipelines())
    width = max(map(len, everything))
    for name in everything:
        dashboard = json.loads(presets.dashboard(name))
        groups = yaml.safe_load(presets.alerts(name))["groups"]
        pipelines, about = "", dashboard["description"].partition(".")[0] + "."
        if name in presets.names():
            pipelines = f"{len(presets.pipelines(name)):2} pipelines"
            about = presets.text(name).partition("\n")[0].removeprefix("# ").partition(": ")[2]
        rules = sum(len(group["rules"]) for group in groups)
        about = about[0].lower() + about[1:]
        print(f"{name:{width}}  {pipelines:12}  dashboard  {rules:2} alerts  {about}")
