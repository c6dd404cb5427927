"""What went wrong, as RFC 9457 has it: every answer of 4xx and 5xx is an application/problem+json."""

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Match

from openanomaly.api.invalid import Invalid, of_body, of_request
from openanomaly.errors import (
    ConfigError,
    PipelineChangedError,
    PipelineExistsError,
    RejectedError,
    RetryableError,
    UnknownPipelineError,
)

MEDIA = "application/problem+json"
RETRY_AFTER_S = 5


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    type: str = "about:blank"
    """Nothing is behind it: the status says what kind of problem it is."""
    title: str
    """The name of the status."""
    status: int = Field(ge=400, le=599)
    """The status of the answer."""
    detail: str
    """What could not be done, the value, the limit and what to change."""
    instance: str
    """The path that was asked for."""
    errors: list[Invalid] | None = None
    """What is wrong with each value (422)."""


class ProblemError(Exception):
    """Ends a request with a problem."""

    def __init__(
        self,
        status: int,
        detail: str,
        errors: list[Invalid] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.errors, self.headers = status, detail, errors, headers


def problem(
    path: str,
    status: int,
    detail: str,
    errors: list[Invalid] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The answer that tells of a problem."""
    found = Problem(
        title=HTTPStatus(status).phrase, status=status, detail=detail, instance=path, errors=errors
    )
    content = found.model_dump(mode="json", exclude_none=True)
    return JSONResponse(content, status, headers, MEDIA)


def problem_of(exc: Exception) -> ProblemError:
    """What an error raised on purpose is to a caller."""
    if isinstance(exc, ProblemError):
        return exc
    if isinstance(exc, ValidationError):
        errors = of_body(exc.errors(include_url=False, include_context=False))
        return ProblemError(422, "; ".join(map(str, errors)), errors)
    if isinstance(exc, RetryableError):
        return ProblemError(503, str(exc), headers={"Retry-After": str(RETRY_AFTER_S)})
    statuses: list[tuple[type[Exception], int]] = [
        (UnknownPipelineError, 404),
        (PipelineExistsError, 409),
        (PipelineChangedError, 412),
        (ConfigError, 422),
    ]
    for kind, status in statuses:
        if isinstance(exc, kind):
            return ProblemError(status, str(exc))
    if isinstance(exc, RejectedError):
        return ProblemError(exc.status, str(exc))
    # What it is stands in the log, written by the server: it may name anything.
    return ProblemError(500, "an unexpected error; the log of the process has it")


def install(app: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """Every error of `app`, which has `routes`, becomes a problem: those of the framework too."""

    def handler(to: Callable[[Any], ProblemError]) -> Callable[[Request, Any], Response]:
        def handle(request: Request, exc: Any) -> Response:
            found = to(exc)
            return problem(request.url.path, found.status, found.detail, found.errors, found.headers)

        return handle

    def of_framework(request: Request, exc: HTTPException) -> Response:
        path, method = request.url.path, request.method
        headers = dict(exc.headers or {})
        detail = exc.detail
        if exc.status_code == 405:
            allowed = _allowed(routes, request)
            headers["Allow"] = ", ".join(allowed)
            detail = f"{method} is not what {path} takes: it takes {', '.join(allowed)}"
        elif exc.status_code == 404:
            detail = f"there is nothing at {path}; /openapi.json has all addresses"
        return problem(path, exc.status_code, detail, headers=headers)

    def of_parameters(exc: RequestValidationError) -> ProblemError:
        errors = of_request(exc.errors())
        return ProblemError(422, "; ".join(map(str, errors)), errors)

    app.add_exception_handler(HTTPException, of_framework)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, handler(of_parameters))
    for kind in (ProblemError, ValidationError, ConfigError, RejectedError, RetryableError, Exception):
        app.add_exception_handler(kind, handler(problem_of))


def _allowed(routes: Sequence[BaseRoute], request: Request) -> list[str]:
    """What the address of a request takes, of all routes that have it."""
    methods: set[str] = set()
    for route in routes:
        match, _ = route.matches(request.scope)
        if match is not Match.NONE:
            methods |= getattr(route, "methods", None) or set()
    return sorted(methods)
