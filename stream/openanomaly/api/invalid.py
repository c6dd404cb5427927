"""What is wrong with the values of a request, each with its place."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict

from openanomaly.core.pipelines.pipeline import Pipeline

_SHOWN = 200


class Invalid(BaseModel):
    """A value that cannot be taken."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    pointer: str | None = None
    """Where it is in the body, as a JSON pointer (RFC 6901); the empty one is all of it."""
    parameter: str | None = None
    """Or the parameter or header that has it."""
    detail: str
    """What is wrong, and what is allowed."""
    value: Any = None
    """The value, if there is one and it is short."""

    def __str__(self) -> str:
        place = self.parameter or (self.pointer or "").strip("/").replace("/", ".") or "the body"
        return f"{place}: {self.detail}"


def of_body(errors: Iterable[Mapping[str, Any]], prefix: str = "") -> list[Invalid]:
    """What pydantic says of a pipeline's document that stands at `prefix` of the body."""
    return [
        Invalid(
            pointer=prefix + pointer(error["loc"]),
            detail=_words(error),
            value=None if error["type"] == "missing" else shown(error["input"]),
        )
        for error in errors
    ]


def of_request(errors: Iterable[Mapping[str, Any]]) -> list[Invalid]:
    """What FastAPI says of parameters and headers."""
    return [
        Invalid(parameter=str(error["loc"][-1]), detail=_words(error), value=shown(error["input"]))
        for error in errors
    ]


def pointer(path: Iterable[str | int]) -> str:
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def shown(value: Any) -> Any:
    """A value as JSON has it, if it is short enough to be said again."""
    if isinstance(value, str):
        return value if len(value) <= _SHOWN else value[:_SHOWN] + "…"
    if isinstance(value, int) and abs(value) >= 1 << 63:
        return None  # JSON has it; many who read JSON have not
    return value if value is None or isinstance(value, bool | int | float) else None


def _words(error: Mapping[str, Any]) -> str:
    kind, path = error["type"], error["loc"]
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(str(path[-1]), _names(path[:-1]), 1)
        return f"there is no option of that name{f'; did you mean {near[0]}?' if near else ''}"
    if kind == "missing":
        return "it is missing"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return "expected an object"
    words: str = error["msg"].removeprefix("Value error, ").replace("valid tuple", "valid array")
    return words.replace("Input should", "it should").replace("String should", "it should")


def _names(path: Iterable[str | int]) -> list[str]:
    """The options of the group at `path` of a pipeline."""
    model: type[BaseModel] = Pipeline
    for part in path:
        if isinstance(part, int):
            continue
        info = model.model_fields.get(part)
        inner = next((a for a in _flat(info.annotation) if _is_group(a)), None) if info else None
        if inner is None:
            return []
        model = inner
    return list(model.model_fields)


def _flat(annotation: Any) -> Iterable[Any]:
    yield annotation
    for inner in get_args(annotation):
        yield from _flat(inner)


def _is_group(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
