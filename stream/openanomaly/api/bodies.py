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


_MS = {"type": "integer", "minimum": 0, "maximum": (1 << 42) - 1, "description": "Unix time in ms."}
_LABELS = {
    "type": "object",
    "minProperties": 1,
    "propertyNames": {"minLength": 1},
    "additionalProperties": {"type": "string"},
}
_SOURCES: dict[str, Schema] = {
    "columns": {
        "type": "object",
        "description": "Series that have their timestamps in common.",
        "properties": {
            "timestamp_ms": {"type": "array", "items": _MS, "minItems": 1, "description": "Ascending."},
            "series": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "properties": {
                        "labels": _LABELS,
                        "value": {
                            "type": "array",
                            "items": {"type": ["number", "null"]},
                            "description": "As many as there are timestamps; null where there is no sample.",
                        },
                    },
                    "required": ["labels", "value"],
                    "additionalProperties": False,
                },
            },
        },
        "required": ["timestamp_ms", "series"],
        "additionalProperties": False,
    },
    "csv": {
        "type": "string",
        "format": "csv",
        "description": "As `openanomaly backtest` reads it: timestamps, and values of one or many series.",
    },
    "range": {
        "type": "object",
        "description": "Of the database that pull.url names.",
        "properties": {"start_ms": _MS, "end_ms": _MS},
        "required": ["start_ms", "end_ms"],
        "additionalProperties": False,
    },
}


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
    out[CHOICE] = _choice(CHOICE, [{}])
    out[PREVIEW] = _choice(PREVIEW, [{name: schema} for name, schema in _SOURCES.items()])
    return out


def _choice(title: str, sources: list[dict[str, Schema]]) -> Schema:
    """An object that has either a definition or the name of a stored one, and what one of `sources` says."""
    whose: list[dict[str, Schema]] = [{"pipeline": {"$ref": REF + PIPELINE}}, {"name": _NAME}]
    shapes = [
        {
            "type": "object",
            "properties": {**who, **source},
            "required": [*who, *source],
            "additionalProperties": False,
        }
        for who in whose
        for source in sources
    ]
    return {"title": title, "oneOf": shapes}
