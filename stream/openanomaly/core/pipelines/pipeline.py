"""What to watch and how: the definition of a pipeline."""

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import xxhash
from pydantic import (
    AfterValidator,
    AllowInfNan,
    BeforeValidator,
    Field,
    WithJsonSchema,
    field_serializer,
    field_validator,
    model_validator,
)

from openanomaly.core.pipelines import combinations
from openanomaly.core.pipelines.models import check_model
from openanomaly.core.pipelines.mute import MuteWindow
from openanomaly.core.pipelines.options import AddedLabels, GroupLabels, Options, OutputName
from openanomaly.core.pipelines.selector import ANOMALY_RATE, Selector
from openanomaly.core.scoring.reason import CHANNELS
from openanomaly.errors import ConfigError


def _unlimited(value: Any) -> Any:
    return float(value) if isinstance(value, str) and value in ("inf", "-inf") else value


_Limit = Annotated[
    float,
    AllowInfNan(True),
    BeforeValidator(_unlimited, json_schema_input_type=float | Literal["inf", "-inf"]),  # JSON has none
]
_Channel = Annotated[str, WithJsonSchema({"type": "string", "enum": list(CHANNELS)})]
OF_GROUPS = "groups"
"""How the transform of windows begins that hold shares of groups, which we make ourselves."""
EVERYTHING = '{__name__=~".*"}'
LEAST_SHARE = 0.05
"""Of a group's series: so many more than expected must be in an episode for the group to be in one."""
DEFAULT_SELECTOR = '{__name__!~".+_bucket"}'


class ScoreOptions(Options):
    """How a pipeline judges; vmanomaly's semantics where it has the same option."""

    direction: Literal["both", "above", "below"] = "both"
    """Which side of normal counts."""
    min_deviation: Annotated[float, Field(ge=0)] = 0.0
    """Absolute distance from the expected value below which a score stays under 1."""
    min_relative_deviation: Annotated[float, Field(ge=0)] = 0.0
    """The same as a share of the expected value; both must be exceeded."""
    scale: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (1.0, 1.0)
    """Factors on the lower and upper half of the range of normal."""
    data_range: tuple[_Limit, _Limit] | None = None
    """A value outside scores 1.01 and is not learned from; a side may be infinite."""
    tolerance: Annotated[float, Field(ge=0, le=10)] = 0.2
    """How far beyond the second most extreme block still counts as normal."""
    block: Annotated[int, Field(ge=12, le=10_000)] = 144
    """Steps of a block: one incident each."""
    memory: Annotated[int, Field(ge=2, le=60_000)] = 112
    """Blocks after which an extreme is forgotten."""
    warmup: Annotated[int, Field(ge=1, le=10_000_000)] = 144
    """Steps of a new series without a score."""
    alert_score: Annotated[float, Field(gt=0, lt=combinations.LARGEST_SCORE)] = 1.0
    """Score above which an episode begins; no score is above 10."""
    quiet: Annotated[int, Field(ge=1, le=10_000_000)] = 24
    """Steps without an alarm that end an episode."""
    channels: Annotated[tuple[_Channel, ...], Field(min_length=1)] | None = None
    """Names of the channels that may speak; all of them by default."""
    mute: tuple[MuteWindow, ...] = ()
    """Calendar windows without episodes: steps that end in one stay below the alarm."""

    @field_validator("data_range")
    @classmethod
    def _is_range(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not value[0] < value[1]:
            raise ValueError(f"expected [lower, upper], found {list(value)}")
        return value

    @field_serializer("data_range", when_used="json-unless-none")
    def _shown(self, value: tuple[float, float]) -> list[float | str]:
        return [side if math.isfinite(side) else str(side) for side in value]  # JSON has no infinity

    @field_validator("channels")
    @classmethod
    def _are_channels(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and (unknown := sorted(set(value) - set(CHANNELS))):
            raise ValueError(f"there is no channel {unknown[0]!r}; they are {', '.join(CHANNELS)}")
        return value

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for impossible in combinations.of_score(self):
            raise ValueError(impossible)
        return self


class OutputOptions(Options):
    """What of a pipeline's scores goes to the target."""

    emit: Literal["all", "episodes"] | None = None
    """Every score, or those of episodes; `sink.emit` without it."""
    series: Annotated[tuple[OutputName, ...], Field(min_length=1)] | None = None
    """What is written of each score; `sink.series` without it."""


class Pipeline(Options):
    """A selector and everything that happens to the series it selects."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.:-]{1,64}$")]
    """The label `pipeline` of its scores."""
    selector: Annotated[str, Field(json_schema_extra={"format": "promql-selector"})] = DEFAULT_SELECTOR
    """PromQL series selector."""
    query: Annotated[str, Field(max_length=65_536, json_schema_extra={"format": "promql"})] | None = None
    """PromQL that pull mode asks at every step, in the place of `selector`; the stream leaves it out."""
    transform: Literal["auto", "none", "rate"] = "auto"
    """`auto`: counters become rates, by metadata or by `_total`, `_count`, `_sum`, `_bucket`."""
    aggregate: Literal["mean", "last", "min", "max", "sum", "count"] = "mean"
    """What samples of one step become."""
    step_s: Annotated[float, Field(ge=1, le=86400)] = 60.0
    """Spacing of what is scored; it may be shorter than the scrape interval."""
    lateness_s: Annotated[float, Field(ge=0, le=3600)] = 10.0
    """How long after its end a step waits for samples that are late."""
    context: Annotated[int, Field(ge=64, le=8192)] = 512
    """Steps that a model sees, and that windows keep."""
    min_context: Annotated[int, Field(ge=2, le=8192)] = 64
    """Values in a context from which on it is forecast."""
    horizon: Annotated[int, Field(ge=1, le=1024)] = 64
    """Steps that a forecast reaches ahead."""
    forecast_every: Annotated[int, Field(ge=1, le=1024)] = 16
    """Steps from one forecast of a series to the next."""
    model: Annotated[str, AfterValidator(check_model), Field(json_schema_extra={"format": "model"})] = "auto"
    """`auto`: the built-in one; or `statistical`, FILE.onnx, a checkpoint's folder or its name on the hub."""
    score: ScoreOptions = ScoreOptions()
    """How steps are judged."""
    output: OutputOptions = OutputOptions()
    """What is written."""
    group_by: GroupLabels = ("job",)
    """Labels whose values make a group; the share of its series in an episode is written and scored too."""
    labels: AddedLabels = {}
    """Labels added to the pipeline's output."""

    @field_validator("selector")
    @classmethod
    def _parses(cls, value: str) -> str:
        try:
            impossible = combinations.of_selector(Selector.parse(value))
        except ConfigError as exc:
            raise ValueError(str(exc)) from exc
        if impossible:
            raise ValueError(impossible)
        return value

    @field_validator("query")
    @classmethod
    def _is_query(cls, value: str | None) -> str | None:
        if value is not None and (wrong := combinations.of_query(value)):
            raise ValueError(wrong)
        return value

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.query is not None and self.selector != DEFAULT_SELECTOR:
            raise ValueError(f"query={self.query!r} and selector={self.selector!r} exclude each other")
        if self.query is not None and self.transform == "rate":
            raise ValueError(f"transform=rate is for counters; query={self.query!r} has to say rate() itself")
        for impossible in combinations.of_pipeline(self):
            raise ValueError(impossible)
        return self

    @property
    def step_ms(self) -> int:
        return round(self.step_s * 1000)

    @property
    def scored(self) -> "Pipeline":
        """The pipeline that scores what a query gives: one value a step, which the query chose."""
        if self.query is None:
            return self
        watched = {"query": None, "selector": EVERYTHING, "transform": "none", "aggregate": "last"}
        return self.model_copy(update=watched)

    @property
    def without_groups(self) -> "Pipeline":
        return self.model_copy(update={"group_by": ()})

    @property
    def of_groups(self) -> "Pipeline":
        """The pipeline that scores the shares of groups: by the same rule, and only where they are high."""
        score = {
            "direction": "above",
            "min_deviation": LEAST_SHARE,
            "min_relative_deviation": 0.0,
            "scale": (1.0, 1.0),
            "data_range": None,
            "channels": None,
        }
        watched = {
            "selector": f'{{__name__="{ANOMALY_RATE}",pipeline="{self.name}"}}',
            "query": None,
            "transform": f"{OF_GROUPS} of {self.transform}/{self.aggregate}",
            "aggregate": "last",
            "lateness_s": 0.0,
            "group_by": (),
            "score": self.score.model_copy(update=score),
        }
        return self.model_copy(update=watched)

    @property
    def window(self) -> "WindowSpec":
        return WindowSpec(self.step_ms, self.transform, self.aggregate, self.context)

    @property
    def forecaster(self) -> "ForecasterSpec":
        return ForecasterSpec(self.model, self.horizon, self.forecast_every, self.min_context)


@dataclass(frozen=True, slots=True)
class WindowSpec:
    """What makes two pipelines share their windows."""

    step_ms: int
    transform: str
    aggregate: str
    context: int

    @property
    def uid(self) -> int:
        return xxhash.xxh3_64_intdigest(str(self).encode())

    @property
    def is_of_groups(self) -> bool:
        """Whether the series are groups."""
        return self.transform.startswith(OF_GROUPS)

    def __str__(self) -> str:
        return f"window step={self.step_ms}ms {self.transform}/{self.aggregate} context={self.context}"


@dataclass(frozen=True, slots=True)
class ForecasterSpec:
    """What makes two pipelines share their forecasts."""

    model: str
    horizon: int
    every: int
    min_context: int

    @property
    def uid(self) -> int:
        return xxhash.xxh3_64_intdigest(str(self).encode())

    def __str__(self) -> str:
        return f"forecast {self.model} horizon={self.horizon} every={self.every} from={self.min_context}"
