"""`openanomaly schema`: what a settings file or a pipeline may hold, for editors and for readers."""

import argparse
import json
from typing import Any

from pydantic import BaseModel

from openanomaly.commands import reference
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.schema import schema_of
from openanomaly.settings import Settings

_MODELS: dict[str, type[BaseModel]] = {"settings": Settings, "pipeline": Pipeline}


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of `openanomaly`."""
    parser = commands.add_parser(
        "schema",
        help="print the JSON Schema of settings and pipelines",
        description="Print the JSON Schema (draft 2020-12) of a settings file, or of one pipeline. Editors "
        "complete and check a YAML file with it: write it to a file, and begin the YAML with "
        "`# yaml-language-server: $schema=FILE`.",
    )
    parser.add_argument("--of", choices=_MODELS, default="settings", help="what; %(default)s by default")
    parser.add_argument(
        "--format", choices=("json", "markdown"), default="json", help="markdown is docs/configuration.md"
    )


def main(options: argparse.Namespace) -> int:
    """Print; the exit status."""
    schema = schema_of(_MODELS[options.of])
    print(reference.page(schema) if options.format == "markdown" else json.dumps(schema, indent=2))
    return 0
