"""Brings into the chart what it has from the rest of the repository: `uv run charts/update.py`.

A chart can only read files of its own folder, so it holds copies of the alert rules and dashboards. The
schema of its values holds that of the product's settings, so `helm install` refuses a setting with which no
process would start. tests/deploy/test_chart_files.py says when this has to be run.
"""

import json
from pathlib import Path
from typing import Any

from openanomaly.core.schema import schema_of
from openanomaly.settings import Settings

CHART = Path(__file__).parent / "openanomaly"
PRESETS = CHART.parents[1] / "stream" / "openanomaly" / "presets"
SCHEMA = CHART / "values.schema.json"
COPIES = {"files/alerts": "alerts/*.yaml", "files/dashboards": "dashboards/*.json"}
_WORDS = ("$schema", "title", "description", "default")


def copies(presets: Path = PRESETS) -> dict[Path, str]:
    """Files of the chart with the text that they should have."""
    return {
        CHART / folder / source.name: source.read_text()
        for folder, pattern in COPIES.items()
        for source in sorted(presets.glob(pattern))
    }


def present() -> dict[Path, str]:
    """The same files as they are."""
    return {file: file.read_text() for folder in COPIES for file in sorted((CHART / folder).glob("*"))}


def schema(chart: dict[str, Any]) -> str:
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


def main() -> None:
    SCHEMA.write_text(schema(json.loads(SCHEMA.read_text())))
    wanted = copies()
    for file in present().keys() - wanted.keys():
        file.unlink()
    for file, text in wanted.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


if __name__ == "__main__":
    main()
