"""JSON Schema of options, for editors: what a YAML file may hold, and not only what a model may."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from openanomaly.core.documents import BYTES, SECONDS

DRAFT = "https://json-schema.org/draft/2020-12/schema"
Schema = dict[str, Any]

_CLOCK = {
    "anyOf": [
        {
            "description": "HH:MM",
            "type": "string",
            "pattern": r"^[0-2][0-9]:[0-5][0-9](:[0-5][0-9](\.[0-9]+)?)?$",
        },
        # YAML 1.1 reads 22:30 without quotes as a number in base 60.
        {"type": "integer", "minimum": 0, "exclusiveMaximum": 86400},
    ]
}
_INFINITY = {"enum": ["inf", "-inf"]}
_KEPT = ("title", "description", "default")


def schema_of(model: type[BaseModel]) -> Schema:
    """The JSON Schema (2020-12) of a document that is checked against `model`.

    Wider than the model where documents are: durations and sizes may have units, groups may be empty,
    times of the clock need no quotes.
    """
    schema = model.model_json_schema()
    for group in (schema, *schema.get("$defs", {}).values()):
        for name, option in group.get("properties", {}).items():
            group["properties"][name] = _option(name, option)
    return {"$schema": DRAFT, **schema}


def _option(name: str, option: Schema) -> Schema:
    for part in _parts(option):
        if isinstance(text := part.get("description"), str):
            part["description"] = " ".join(text.split())
        if part.get("format") == "time":
            part.pop("format")
            part.pop("type")
            part.update(_CLOCK)
        if "patternProperties" in part:
            part["additionalProperties"] = False
    if name == "data_range":
        for array in (part for part in _parts(option) if "prefixItems" in part):
            array["prefixItems"] = [{"anyOf": [item, _INFINITY]} for item in array["prefixItems"]]
    if (units := _units(name)) is not None:
        return _or(option, {"type": "string", "pattern": rf"^\s*[0-9]*\.?[0-9]+\s*({units})?\s*$"})
    if "$ref" in option:
        option.pop("default", None)  # what its options say
        return _or(option, {"type": "null"})
    if "$ref" in option.get("items", {}):
        return _or(option, {"type": "null"})
    return option


def _or(option: Schema, other: Schema) -> Schema:
    """`option`, or another kind of value."""
    kept = {key: option.pop(key) for key in _KEPT if key in option}
    return {"anyOf": [*option.get("anyOf", [option]), other], **kept}


def _units(name: str) -> str | None:
    if name.endswith(("_s", "_ms")):
        return "|".join(SECONDS)
    return "|".join(BYTES) if name.endswith("_bytes") else None


def _parts(schema: Any) -> Iterator[Schema]:
    """A schema and the schemas inside it."""
    if isinstance(schema, dict):
        yield schema
        for value in list(schema.values()):
            yield from _parts(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _parts(value)
