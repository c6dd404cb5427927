"""What is answered, and how the description of the API says so."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from openanomaly.api.problems import MEDIA
from openanomaly.api.requests import JSON
from openanomaly.core.pipelines.pipeline import Pipeline

REF = "#/components/schemas/"

_PROBLEMS = {
    400: "The body is not JSON.",
    401: "Credentials are missing, or not those that are wanted.",
    403: "Without credentials only this machine itself is answered.",
    404: "There is no pipeline of that name.",
    406: "Accept does not have what is answered.",
    409: "Other pipelines are in the way, of the store or of a preset that processes run.",
    412: "The pipeline is not any more, or not yet, as the caller thought.",
    413: "The body is too large.",
    415: "The body is not application/json.",
    422: "A value cannot be taken: `errors` has each, with its place.",
    428: "The pipeline is there: If-Match has to say which version of it is meant.",
    500: "An error that nobody has thought of.",
    503: "The store, or a database, does not answer now, or too much is asked for at once.",
}
_ALWAYS = (401, 403, 500)


class Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, arbitrary_types_allowed=True)


class Listed(Answer):
    """A pipeline in a list."""

    etag: str
    """What If-Match has to say to change it."""
    pipeline: Pipeline
    """Its definition, every option with its value."""


class Page(Answer):
    """Some of the pipelines."""

    items: list[Listed]
    """By name, ascending."""
    next: str | None
    """Where the next ones are; null at the end."""
    problems: list[str]
    """What the store has and cannot be used. While there is any, processes go on with what they had."""


class Valid(Answer):
    """A definition that can be used."""

    pipeline: Pipeline
    """The definition, every option with its value."""


class Series(Answer):
    """How many series a selector matches now."""

    count: int | None = Field(ge=0)
    """Null where nobody can be asked: `note` says why."""
    of: str
    """What was counted."""
    note: str | None
    """What to know of the count."""


class Memory(Answer):
    """Bytes in a window worker, labels not included: from the columns that it keeps."""

    row_state: int = Field(ge=0)
    """What windows and scoring remember of a series."""
    ring: int = Field(ge=0)
    """The steps kept of a series: `context` and a margin, 4 bytes each."""
    bands: int = Field(ge=0)
    """The forecast in force of a series: 5 quantiles of `horizon` steps, 2 bytes each."""
    shared: int = Field(ge=0)
    """Of all that, what a series has already where one of `shared_with` watches it."""
    per_series: int = Field(ge=0)
    """The sum without `shared`: what one series costs alone."""
    total: int | None = Field(ge=0)
    """For all series of the selector."""


class Rates(Answer):
    """Work a second for all series, each with a sample in every step."""

    forecasts_per_s: float = Field(ge=0)
    """Contexts that inference has to forecast."""
    inference_cores: float | None = Field(ge=0)
    """Share of a core for them, at the measured rate; null for a model that was not measured."""
    window_cores: float = Field(ge=0)
    """Share of a core for windows and scores, at the measured rate."""
    samples_written_per_s: float = Field(ge=0)
    """At most: fewer where only episodes are sent."""
    measured: str
    """Which rates they are: those of another machine differ."""


class DryRun(Answer):
    """What a pipeline would watch, and what that would cost."""

    pipeline: Pipeline
    """The definition, every option with its value."""
    series: Series
    memory_bytes: Memory
    rates: Rates | None
    """Null where series could not be counted."""
    shared_with: list[str]
    """Stored pipelines that have the same windows."""


MODELS: tuple[type[BaseModel], ...] = (Page, Valid, DryRun)


def said(
    schema: str, text: str, media: str = JSON, headers: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    """The description of an answer whose body is of a schema."""
    found: dict[str, Any] = {
        "description": text,
        "content": {media: {"schema": {"$ref": REF + schema}}},
        **more,
    }
    if headers:
        found["headers"] = headers
    return found


def header(text: str, example: str | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"description": text, "required": True, "schema": {"type": "string"}}
    return found if example is None else {**found, "example": example}


ETAG = {"ETag": header("The version, for If-Match and If-None-Match.", '"5f0c2b7d9a3e4c18"')}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The descriptions of what may go wrong, with what may always."""
    out: dict[int | str, dict[str, Any]] = {}
    for status in sorted({*statuses, *_ALWAYS}):
        headers: dict[str, Any] = {}
        if status == 503:
            headers["Retry-After"] = header("Seconds to wait.", "5")
        if status == 401:
            headers["WWW-Authenticate"] = header("How to authenticate.", "Bearer")
        out[status] = said("Problem", _PROBLEMS[status], MEDIA, headers)
    return out
