"""Pipeline definitions in documents of MongoDB."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from openanomaly.core.documents import nearest, tidy, wrong
from openanomaly.core.pipelines.pipeline import Pipeline

FIELDS = ("_id", "revision", "definition")


def checked(document: Mapping[str, Any], place: str) -> tuple[Pipeline | None, list[str]]:
    """The pipeline of a document, or what is wrong with it."""
    name, definition = document.get("_id"), document.get("definition")
    problems = []
    for key in sorted(document.keys() - {*FIELDS}):
        near = nearest(key, FIELDS)
        problems.append(f"{place}: no field {key}{near and f'; did you mean {near}?'}")
    if not isinstance(definition, dict):
        kind = type(definition).__name__
        return None, [*problems, f"{place}: definition: expected options of a pipeline, found {kind}"]
    # By hand the name may be left out: it stands beside.
    definition = {"name": name, **definition}
    if definition["name"] != name:
        return None, [*problems, f"{place}: name = {definition['name']!r}: expected the same as _id"]
    tidy(Pipeline, definition)
    try:
        pipeline = Pipeline.model_validate(definition)
    except ValidationError as exc:
        return None, [*problems, *wrong(exc, Pipeline, lambda path: place)]
    return (None if problems else pipeline), problems
