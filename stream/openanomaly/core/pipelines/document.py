"""A pipeline as a JSON document: read strictly, written whole, and described by a JSON Schema."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from openanomaly.core.pipelines.mute import CLOCK
from openanomaly.core.pipelines.options import FROM_JSON
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.errors import MalformedRequestError

_DEEPEST = 50
_EXACT = 2.0**53


def parse(text: bytes) -> Any:
    """The value of a JSON text (RFC 8259); a name given twice, NaN and infinities are none.

    Raises:
        MalformedRequestError: it is none, with the place.
    """
    try:
        value = json.loads(text.decode("utf-8"), parse_constant=_refuse, object_pairs_hook=_once)
    except UnicodeDecodeError as exc:
        raise MalformedRequestError(
            f"the body is not UTF-8: byte {exc.start} is 0x{text[exc.start]:02x}"
        ) from exc
    except RecursionError as exc:
        raise MalformedRequestError(f"the body is nested too deeply; at most {_DEEPEST} levels") from exc
    except ValueError as exc:
        raise MalformedRequestError(f"the body is not JSON: {exc}") from exc
    _check(value, 0)
    return value


def _refuse(word: str) -> None:
    raise ValueError(f"JSON has no {word}")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {twice!r} is given twice")
    return found


def _check(value: Any, depth: int) -> None:
    if depth > _DEEPEST:
        raise MalformedRequestError(f"the body is nested too deeply; at most {_DEEPEST} levels")
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
            raise MalformedRequestError("the body is not JSON: half of a surrogate pair is no character")
    elif isinstance(value, dict):
        for name, inner in value.items():
            _check(name, depth)
            _check(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _check(inner, depth + 1)


def read(document: Any) -> Pipeline:
    """The pipeline that a parsed JSON document defines. A number in quotes is no number.

    Raises:
        pydantic.ValidationError: it defines none.
    """
    return Pipeline.model_validate(_frozen(document), strict=True, context=FROM_JSON)


def _frozen(value: Any) -> Any:
    """What a strict validation takes: JSON's lists are our tuples, and its 64.0 is the integer 64."""
    if isinstance(value, list):
        return tuple(map(_frozen, value))
    if isinstance(value, dict):
        return {name: _frozen(inner) for name, inner in value.items()}
    if isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT:
        return int(value)
    return value


def write(pipeline: Pipeline) -> dict[str, Any]:
    """The document of a pipeline, every option with its value; `read` gives the pipeline back."""
    return pipeline.model_dump(mode="json")


def schemas(template: str) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """The JSON Schema (2020-12) of a document, and those that it refers to by `template`."""
    schema = Pipeline.model_json_schema(mode="validation", ref_template=template)
    parts: dict[str, Any] = schema.pop("$defs", {})
    correct((schema, *parts.values()))
    return schema, parts


def correct(schemas: Iterable[dict[str, Any]]) -> None:
    """Make times of the clock what they are: those of JSON Schema have a zone."""
    for group in schemas:
        for option in group.get("properties", {}).values():
            if option.get("format") == "time":
                del option["format"]
                option["pattern"] = CLOCK
