"""Pipelines of the store: listed, read, created, replaced and deleted, each change of a known version."""

import base64
import binascii
from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi import Path as InPath
from pydantic import BeforeValidator, WithJsonSchema

from openanomaly import presets
from openanomaly.api.answers import ETAG, header, problems, said
from openanomaly.api.bodies import NAMELESS, PIPELINE, body
from openanomaly.api.invalid import Invalid
from openanomaly.api.problems import ProblemError
from openanomaly.api.requests import accept, etag, only, read_json, tags, to_json
from openanomaly.core.pipelines import document
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.ports.config_store import ConfigStore, Stored
from openanomaly.core.windows.plan import plan
from openanomaly.errors import ConfigError, PipelineExistsError, UnknownPipelineError

PATH = "/api/v1/pipelines"
_PAGE = 100
_DOTS = (".", "..")


def _digits(value: Any) -> Any:
    if isinstance(value, str) and not (value.isascii() and value.isdecimal()):
        raise ValueError(f"expected digits, found {value!r}")
    return value


Name = Annotated[str, InPath(pattern=r"^[a-zA-Z0-9_.:-]{1,64}$", description="Of a pipeline.")]
IfMatch = Annotated[
    str | None,
    Header(description="The ETag of what is to be changed; `*` for whatever is there."),
    WithJsonSchema({"type": "string", "examples": ['"5f0c2b7d9a3e4c18"', "*"]}),
]
IfNoneMatch = Annotated[
    str | None,
    Header(description="ETags of what the caller has; `*` to change nothing that is there."),
    WithJsonSchema({"type": "string", "examples": ['"5f0c2b7d9a3e4c18"', "*"]}),
]


def router(store: ConfigStore, chosen: Sequence[str], body_limit_bytes: int, page_limit: int) -> APIRouter:
    """Routes of the pipelines in `store`, which run beside those of the `chosen` presets."""
    routes = APIRouter(tags=["pipelines"])
    setting = "api.body_limit_bytes"
    default = min(_PAGE, page_limit)

    @routes.get(
        PATH,
        operation_id="listPipelines",
        summary="Pipelines, page by page",
        responses={200: said("Page", "Some of the pipelines."), **problems(406, 422, 503)},
        response_class=Response,
    )
    async def listed(
        request: Request,
        limit: Annotated[
            int,
            BeforeValidator(_digits),
            Query(ge=1, le=page_limit, description="Most pipelines of the page."),
        ] = default,
        cursor: Annotated[
            str | None,
            Query(description="Where to go on: taken from `next`, not made up."),
            WithJsonSchema({"type": "string", "format": "cursor"}),
        ] = None,
    ) -> Response:
        accept(request)
        only(request, ("limit", "cursor"))
        after = _after(cursor)
        found = await store.read()
        rest = [one for one in found.stored if one.pipeline.name > after]
        page = rest[:limit]
        next_path = None
        if len(rest) > limit:
            more = {"limit": limit, "cursor": _cursor(page[-1].pipeline.name)}
            next_path = f"{PATH}?{urlencode(more)}"
        content = {
            "items": [{"etag": etag(one.version), "pipeline": document.write(one.pipeline)} for one in page],
            "next": next_path,
            "problems": list(found.problems),
        }
        headers = {"Link": f'<{next_path}>; rel="next"'} if next_path else {}
        return to_json(content, 200, headers)

    @routes.post(
        PATH,
        operation_id="createPipeline",
        summary="Add a pipeline",
        status_code=201,
        openapi_extra=body(PIPELINE),
        responses={
            201: said(
                "Pipeline",
                "It is stored.",
                headers={**ETAG, "Location": header("Its address.", f"{PATH}/api")},
                links=_links("$response.body#/name"),
            ),
            **problems(400, 406, 409, 413, 415, 422, 503),
        },
        response_class=Response,
    )
    async def create(request: Request) -> Response:
        accept(request)
        only(request)
        pipeline = document.read(await read_json(request, body_limit_bytes, setting))
        return _made(await _create(pipeline))

    @routes.get(
        PATH + "/{name}",
        operation_id="readPipeline",
        summary="A pipeline",
        responses={
            200: said("Pipeline", "Its definition, every option with its value.", headers=ETAG),
            304: {"description": "The caller has it.", "headers": ETAG},
            **problems(404, 406, 422, 503),
        },
        response_class=Response,
    )
    async def read(request: Request, name: Name, if_none_match: IfNoneMatch = None) -> Response:
        accept(request)
        only(request)
        one = await find(store, name)
        if if_none_match is not None:
            known = tags(if_none_match, weak=True)
            if known is None or one.version in known:
                return Response(status_code=304, headers={"ETag": etag(one.version)})
        return _told(one)

    @routes.put(
        PATH + "/{name}",
        operation_id="putPipeline",
        summary="Replace a pipeline, or create it",
        description="`If-Match` replaces the version that it names, `If-None-Match: *` creates a pipeline "
        "and replaces none. Without either, it is created, and a name that is taken answers 428.",
        openapi_extra=body(NAMELESS),
        responses={
            200: said("Pipeline", "It is replaced.", headers=ETAG),
            201: said(
                "Pipeline",
                "It is created.",
                headers={**ETAG, "Location": header("Its address.", f"{PATH}/api")},
                links=_links("$request.path.name"),
            ),
            **problems(400, 406, 409, 412, 413, 415, 422, 428, 503),
        },
        response_class=Response,
    )
    async def put(
        request: Request, name: Name, if_match: IfMatch = None, if_none_match: IfNoneMatch = None
    ) -> Response:
        accept(request)
        only(request)
        pipeline = document.read(_named(name, await read_json(request, body_limit_bytes, setting)))
        if if_match is None:
            try:
                return _made(await _create(pipeline))
            except PipelineExistsError as exc:
                if tags(if_none_match, weak=True) is None:
                    raise ProblemError(412, f"{exc}; If-None-Match is {if_none_match!r}") from exc
                raise ProblemError(428, f"{exc}; If-Match has to say which version to replace") from exc
        try:
            one = await _matching(store, name, if_match)
            _fits(pipeline, (await store.read()).pipelines, chosen)
            return _told(await store.replace(pipeline, None if if_match.strip() == "*" else one.version))
        except UnknownPipelineError as exc:
            raise ProblemError(412, f"{exc}; If-Match is {if_match!r}") from exc

    @routes.delete(
        PATH + "/{name}",
        operation_id="deletePipeline",
        summary="Delete a pipeline",
        status_code=204,
        responses={204: {"description": "It is deleted."}, **problems(404, 406, 412, 422, 428, 503)},
        response_class=Response,
    )
    async def delete(request: Request, name: Name, if_match: IfMatch = None) -> Response:
        only(request)
        if if_match is None:
            await find(store, name)
            raise ProblemError(
                428, f"pipeline {name!r} is there; If-Match has to say which version of it to delete"
            )
        one = await _matching(store, name, if_match)
        await store.delete(name, None if if_match.strip() == "*" else one.version)
        return Response(status_code=204)

    async def _create(pipeline: Pipeline) -> Stored:
        if pipeline.name in _DOTS:
            wrong = Invalid(pointer="/name", detail="no address can hold it", value=pipeline.name)
            raise ProblemError(422, str(wrong), [wrong])
        _fits(pipeline, (await store.read()).pipelines, chosen)
        return await store.create(pipeline)

    return routes


def beside_presets(pipeline: Pipeline, chosen: Sequence[str]) -> Sequence[Pipeline]:
    """The pipelines of the chosen presets, none of which has its name: processes would take neither.

    Raises:
        ProblemError: one has.
    """
    try:
        return presets.beside([pipeline], chosen)[1:]
    except ConfigError as exc:
        raise ProblemError(409, str(exc)) from exc


def _fits(pipeline: Pipeline, stored: Sequence[Pipeline], chosen: Sequence[str]) -> None:
    """See that processes could run it beside what is there."""
    others = (*stored, *beside_presets(pipeline, chosen))
    if any(other.name == pipeline.name and other.window == pipeline.window for other in others):
        return  # it takes the place of one that was there
    try:
        plan([*(other for other in others if other.name != pipeline.name), pipeline])
    except ConfigError as exc:
        raise ProblemError(409, str(exc)) from exc


async def find(store: ConfigStore, name: str) -> Stored:
    """What the store has of that name.

    Raises:
        UnknownPipelineError: nothing.
    """
    found = await store.read()
    for one in found.stored:
        if one.pipeline.name == name:
            return one
    problems = f"; what cannot be used there: {'; '.join(found.problems)}" if found.problems else ""
    raise UnknownPipelineError(f"there is no pipeline {name!r} in {store.shown}{problems}")


async def _matching(store: ConfigStore, name: str, if_match: str) -> Stored:
    one = await find(store, name)
    wanted = tags(if_match, weak=False)
    if wanted is not None and one.version not in wanted:
        raise ProblemError(
            412,
            f"pipeline {name!r} has ETag {etag(one.version)} now, If-Match is {if_match!r}; read it again",
            headers={"ETag": etag(one.version)},
        )
    return one


def _named(name: str, value: Any) -> Any:
    """The body of a PUT with the name of its address, which it may leave out."""
    if not isinstance(value, dict):
        return value
    if value.setdefault("name", name) != name:
        wrong = Invalid(pointer="/name", detail=f"the address says {name!r}", value=str(value["name"])[:100])
        raise ProblemError(422, str(wrong), [wrong])
    return value


def _cursor(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")


def _after(cursor: str | None) -> str:
    if cursor is None:
        return ""
    try:
        name = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        name = ""
    if not name or _cursor(name) != cursor:
        wrong = Invalid(parameter="cursor", detail="it was not taken from `next`", value=cursor[:100])
        raise ProblemError(422, str(wrong), [wrong])
    return name


def _links(name: str) -> dict[str, Any]:
    tag = "$response.header.ETag"
    return {
        "read": {"operationId": "readPipeline", "parameters": {"name": name}},
        "replace": {"operationId": "putPipeline", "parameters": {"name": name, "header.If-Match": tag}},
        "delete": {"operationId": "deletePipeline", "parameters": {"name": name, "header.If-Match": tag}},
    }


def _told(one: Stored) -> Response:
    return to_json(document.write(one.pipeline), 200, {"ETag": etag(one.version)})


def _made(one: Stored) -> Response:
    address = f"{PATH}/{quote(one.pipeline.name)}"
    return to_json(document.write(one.pipeline), 201, {"ETag": etag(one.version), "Location": address})
