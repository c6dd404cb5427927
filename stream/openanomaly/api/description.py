"""The OpenAPI description, true to what is taken and answered, and a page of it that needs no network."""

from collections.abc import Callable, Iterator
from html import escape
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from openanomaly.api import bodies
from openanomaly.api.answers import MODELS, REF
from openanomaly.api.problems import Problem
from openanomaly.api.requests import only, to_json
from openanomaly.core.pipelines import document

SCHEMA = "/api/v1/schema"
_OPENAPI = "/openapi.json"
_DOCS = "/docs"
_STYLE = "body{font:15px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}code,pre{font-size:13px}"
_CSP = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"
_NUMBER = {"type": ["number", "null"]}


def describe(app: FastAPI, *, with_tokens: bool, with_passwords: bool) -> dict[str, Any]:
    """The OpenAPI document of `app`, with the kinds of credentials that its settings ask for."""
    out = get_openapi(
        title="OpenAnomaly",
        version=version("openanomaly"),
        summary="Pipelines of anomaly detection: defined, checked and tried.",
        routes=app.routes,
    )
    components = out.setdefault("components", {})
    components["schemas"] = _schemas()
    schemes: dict[str, Any] = {}
    if with_tokens:
        schemes["bearer"] = {"type": "http", "scheme": "bearer"}
    if with_passwords:
        schemes["basic"] = {"type": "http", "scheme": "basic"}
    if schemes:
        components["securitySchemes"] = schemes
        out["security"] = [{name: []} for name in schemes]
    return out


def _schemas() -> dict[str, Any]:
    answers = [(model, "serialization") for model in (*MODELS, Problem)]
    _, found = models_json_schema(answers, ref_template=REF + "{model}")  # type: ignore[arg-type]
    document.correct(found["$defs"].values())
    return {**found["$defs"], **bodies.schemas(), "PreviewLine": _preview_line()}


def _preview_line() -> dict[str, Any]:
    count = {"type": "integer", "minimum": 0}
    numbers = {"type": "array", "items": _NUMBER}
    lines: dict[str, dict[str, Any]] = {
        "progress": {"samples_done": count, "samples": count},
        "scores": {
            "series": {**count, "description": "Its place in the recording."},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "end_ms": {"type": "array", "items": count, "description": "Ends of the steps."},
            **dict.fromkeys(("value", "expected", "lower", "upper", "score"), numbers),
            "reason": {"type": "array", "items": {"type": "string"}},
        },
        "summary": {
            **dict.fromkeys(("steps", "scored", "above_alert", "forecasts", "unselected_series"), count),
            "forecasts_failed": {"type": "object", "additionalProperties": count},
            "seconds": {"type": "number"},
        },
        "problem": {"status": count, "detail": {"type": "string"}},
    }
    return {
        "title": "PreviewLine",
        "oneOf": [
            {
                "type": "object",
                "properties": {"kind": {"const": kind}, **properties},
                "required": ["kind", *properties],
            }
            for kind, properties in lines.items()
        ],
    }


def router(described: Callable[[], dict[str, Any]]) -> APIRouter:
    """Routes that tell of the others."""
    routes = APIRouter()

    @routes.get(_OPENAPI, include_in_schema=False)
    async def openapi(request: Request) -> Response:
        only(request)
        return to_json(described())

    @routes.get(SCHEMA, include_in_schema=False)
    async def schema(request: Request) -> Response:
        only(request)
        found, parts = document.schemas("#/$defs/{model}")
        draft = "https://json-schema.org/draft/2020-12/schema"
        return to_json({"$schema": draft, **found, "$defs": dict(parts)})

    @routes.get(_DOCS, include_in_schema=False)
    async def docs(request: Request) -> Response:
        only(request)
        headers = {"Content-Security-Policy": _CSP, "X-Content-Type-Options": "nosniff"}
        return Response("".join(_page(described())), 200, headers, "text/html; charset=utf-8")

    return routes


def _page(description: dict[str, Any]) -> Iterator[str]:
    """HTML of the operations: no script, and nothing from elsewhere."""
    yield f"<!doctype html><html lang=en><title>OpenAnomaly API</title><style>{_STYLE}</style>"
    yield f"<h1>OpenAnomaly API {escape(description['info']['version'])}</h1>"
    yield f'<p>For programs: <a href="{_OPENAPI}">{_OPENAPI}</a>, <a href="{SCHEMA}">{SCHEMA}</a>.'
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            yield f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(operation['summary'])}."
            if "description" in operation:
                yield f"<p>{escape(operation['description'])}"
            yield "<ul>"
            for parameter in operation.get("parameters", ()):
                yield f"<li><code>{escape(parameter['name'])}</code> ({parameter['in']}): "
                yield escape(parameter.get("description", ""))
            yield "</ul><ul>"
            for status, answer in operation["responses"].items():
                yield f"<li><code>{status}</code>: {escape(answer['description'])}"
            yield "</ul>"
    yield "</html>"
