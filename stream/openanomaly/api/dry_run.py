"""Definitions that are looked at and not stored: whether they are valid, what they would watch and cost."""

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError

from openanomaly.api.answers import problems, said
from openanomaly.api.bodies import CHOICE, CHOICE_EXAMPLE, PIPELINE, body
from openanomaly.api.invalid import Invalid, of_body
from openanomaly.api.pipelines import beside_presets, find
from openanomaly.api.problems import ProblemError
from openanomaly.api.requests import accept, only, read_json, to_json
from openanomaly.api.series import SeriesCounter
from openanomaly.core.pipelines import document
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.ports.config_store import ConfigStore
from openanomaly.core.windows.cost import FORECASTS_PER_CORE_S, STEPS_PER_CORE_S, series_bytes, work

VALIDATE = "/api/v1/validate"
DRY_RUN = "/api/v1/dry-run"
_MEASURED = (
    f"{FORECASTS_PER_CORE_S:,.0f} contexts of 512 steps forecast a second by the built-in model, and "
    f"{STEPS_PER_CORE_S:,.0f} steps a second through windows and scoring with compiled loops, each on one "
    "core of the machine that bench/README.md names"
)


def router(
    store: ConfigStore,
    presets: Sequence[str],
    counter: SeriesCounter,
    body_limit_bytes: int,
    outputs: int,
) -> APIRouter:
    """Routes that change nothing. `presets` run too; `outputs` are the samples written of each score."""
    routes = APIRouter(tags=["definitions"])
    setting = "api.body_limit_bytes"

    @routes.post(
        VALIDATE,
        operation_id="validatePipeline",
        summary="Whether a definition is valid",
        openapi_extra=body(PIPELINE),
        responses={200: said("Valid", "It is."), **problems(400, 406, 413, 415, 422)},
        response_class=Response,
    )
    async def validate(request: Request) -> Response:
        accept(request)
        only(request)
        pipeline = document.read(await read_json(request, body_limit_bytes, setting))
        return to_json({"pipeline": document.write(pipeline)})

    @routes.post(
        DRY_RUN,
        operation_id="dryRunPipeline",
        summary="How many series a pipeline would watch now, and what that would cost",
        openapi_extra=body(CHOICE, CHOICE_EXAMPLE),
        responses={
            200: said("DryRun", "Nothing is changed by it."),
            **problems(400, 404, 406, 409, 413, 415, 422, 503),
        },
        response_class=Response,
    )
    async def dry_run(request: Request) -> Response:
        accept(request)
        only(request)
        value = await read_json(request, body_limit_bytes, setting)
        pipeline = await chosen(store, value, frozenset())
        beside_presets(pipeline, presets)  # or it would never run
        others = [one for one in (await store.read()).pipelines if one.name != pipeline.name]
        counted = await counter.count(pipeline)
        memory = series_bytes(pipeline, others)
        count = counted.count
        rates = None
        if count is not None:
            found = work(pipeline, count, outputs)
            rates = {
                "forecasts_per_s": found.forecasts_per_s,
                "inference_cores": found.inference_cores,
                "window_cores": found.window_cores,
                "samples_written_per_s": found.samples_written_per_s,
                "measured": _MEASURED,
            }
        return to_json(
            {
                "pipeline": document.write(pipeline),
                "series": {"count": count, "of": counted.of, "note": counted.note},
                "memory_bytes": {
                    "row_state": memory.row_state,
                    "ring": memory.ring,
                    "bands": memory.bands,
                    "shared": memory.shared,
                    "per_series": memory.total,
                    "total": None if count is None else count * memory.total,
                },
                "rates": rates,
                "shared_with": [one.name for one in others if one.window == pipeline.window],
            }
        )

    return routes


async def chosen(store: ConfigStore, value: Any, more: frozenset[str]) -> Pipeline:
    """The pipeline that a body defines or names; the body may have `more` besides.

    Raises:
        ProblemError, UnknownPipelineError: it does neither, or both.
    """
    if not isinstance(value, dict):
        raise _wrong("", "expected an object")
    unknown = sorted(set(value) - {"pipeline", "name"} - more)
    if unknown:
        raise _wrong(f"/{unknown[0]}", "there is nothing of that name here")
    if ("pipeline" in value) == ("name" in value):
        raise _wrong("", "expected either `pipeline`, a definition, or `name`, that of a stored one")
    if "name" in value:
        if not isinstance(value["name"], str):
            raise _wrong("/name", "expected a string")
        return (await find(store, value["name"])).pipeline
    try:
        return document.read(value["pipeline"])
    except ValidationError as exc:
        errors = of_body(exc.errors(include_url=False, include_context=False), "/pipeline")
        raise ProblemError(422, "; ".join(map(str, errors)), errors) from exc


def _wrong(pointer: str, detail: str) -> ProblemError:
    wrong = Invalid(pointer=pointer, detail=detail)
    return ProblemError(422, str(wrong), [wrong])
