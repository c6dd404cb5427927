"""Puts the product's settings into the chart's schema: `uv run charts/schema.py` after a change of settings.

So `helm install` refuses a setting with which no process would start.
"""

import json
from pathlib import Path
from typing import Any

from openanomaly.core.schema import schema_of
from openanomaly.settings import Settings

FILE = Path(__file__).parent / "openanomaly" / "values.schema.json"
_WORDS = ("$schema", "title", "description", "default")


def text(chart: dict[str, Any]) -> str:
    """The chart's schema with the settings of the product as they are now, as its file has it.

    Names of its own definitions begin with a small letter, those of the product with a capital one.
    """
    settings = _without_words(schema_of(Settings))
    own = {name: each for name, each in chart["$defs"].items() if name[0].islower()}
    products = settings.pop("$defs")
    return json.dumps({**chart, "$defs": {**own, **products, "Settings": settings}}, indent=2) + "\n"


def _without_words(schema: Any, are_names: bool = False) -> Any:
    """What decides whether a value is allowed; words are in docs/configuration.md.

    Args:
        are_names: the keys of `schema` are names of options, which may be words too.
    """
    if isinstance(schema, list):
        return [_without_words(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _without_words(value, not are_names and key in ("properties", "$defs"))
        for key, value in schema.items()
        if are_names or key not in _WORDS
    }


if __name__ == "__main__":
    FILE.write_text(text(json.loads(FILE.read_text())))
