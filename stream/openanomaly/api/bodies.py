"""What request bodies are, for the description of the API."""

from typing import Any

from openanomaly.api.answers import REF
from openanomaly.api.requests import JSON
from openanomaly.core.pipelines import document

Schema = dict[str, Any]

PIPELINE = "PipelineDefinition"
NAMELESS = "PipelineDefinitionOfAddress"
CHOICE = "DefinitionOrName"
PREVIEW = "PreviewRequest"

_EXAMPLE = {
    "name": "api",
    "selector": '{job="api", __name__=~"http_requests_total|http_request_duration_seconds_sum"}',
    "step_s": 60,
    "score": {"direction": "above"},
}
_NAME = {"type": "string", "pattern": "^[a-zA-Z0-9_.:-]{1,64}$", "description": "Of a stored pipeline."}


def body(schema: str, example: Any = None) -> Schema:
    """The description of a request whose body is of a schema."""
    example = _EXAMPLE if example is None else example
    content = {JSON: {"schema": {"$ref": REF + schema}, "example": example}}
    return {"requestBody": {"required": True, "content": content}}


CHOICE_EXAMPLE = {"pipeline": _EXAMPLE}
PREVIEW_EXAMPLE = {
    "pipeline": {"name": "api", "context": 64, "min_context": 8, "score": {"warmup": 12}},
    "columns": {
        "timestamp_ms": [1795600000000, 1795600060000],
        "series": [{"labels": {"__name__": "up", "job": "api"}, "value": [1, None]}],
    },
}


def schemas() -> dict[str, Schema]:
    """The schemas of all bodies, by name. They are those of what is taken: answers have their own."""
    pipeline, parts = document.schemas(REF + "{model}Definition")
    out = {f"{name}Definition": part for name, part in parts.items()}
    pipeline["title"] = PIPELINE
    out[PIPELINE] = pipeline
    name = {**pipeline["properties"]["name"], "description": "That of the address; it may be left out."}
    out[NAMELESS] = {
        **{key: value for key, value in pipeline.items() if key != "required"},
        "title": NAMELESS,
        "properties": {**pipeline["properties"], "name": name},
    }
    out[CHOICE] = _choice(CHOICE, {}, [])
    return out


def _choice(title: str, more: dict[str, Schema], required: list[str]) -> Schema:
    """An object that has either a definition or the name of a stored one, and `more`."""
    return {
        "title": title,
        "type": "object",
        "oneOf": [
            {
                "type": "object",
                "properties": {"pipeline": {"$ref": REF + PIPELINE}, **more},
                "required": ["pipeline", *required],
                "additionalProperties": False,
            },
            {
                "type": "object",
                "properties": {"name": _NAME, **more},
                "required": ["name", *required],
                "additionalProperties": False,
            },
        ],
    }
