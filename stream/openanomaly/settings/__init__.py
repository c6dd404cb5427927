"""Process settings: one tree of frozen models, checked before anything starts.

Every field has a unit in its name, a default that works on a laptop, an allowed range and a line
of documentation. `openanomaly.yaml`, `OPENANOMALY_*` variables and flags fill it, later wins
(settings/sources.py).
"""

from typing import Annotated, Any, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from openanomaly import presets
from openanomaly.adapters import stores
from openanomaly.core.pipelines.options import Options
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.errors import ConfigError
from openanomaly.settings.broker import BrokerSettings
from openanomaly.settings.roles import (
    BackfillSettings,
    InferenceSettings,
    LogSettings,
    ReceiverSettings,
    StatusSettings,
    WindowSettings,
)
from openanomaly.settings.servers import PullSettings, ServerSettings, SinkSettings, StoreSettings
from openanomaly.settings.values import Secret
from openanomaly.settings.web import (
    ApiSettings,
    AuthSettings,
    PlaygroundSettings,
    TlsServerSettings,
    WebSettings,
)


def _known(schema: dict[str, Any]) -> None:
    schema["enum"] = list(presets.names())


class Settings(Options):
    """Everything a process is told. Read-only; a change is a new one."""

    broker: BrokerSettings = BrokerSettings()
    """What roles meet on."""
    web: WebSettings = WebSettings()
    """The one port of a process."""
    receiver: ReceiverSettings = ReceiverSettings()
    """What is taken from senders."""
    window: WindowSettings = WindowSettings()
    """Series and their steps."""
    inference: InferenceSettings = InferenceSettings()
    """Forecasts in batches."""
    sink: SinkSettings = SinkSettings()
    """The target of the scores."""
    pull: PullSettings = PullSettings()
    """The database that pull mode asks."""
    backfill: BackfillSettings = BackfillSettings()
    """The past of new series."""
    status: StatusSettings = StatusSettings()
    """The status page of the sink role."""
    api: ApiSettings = ApiSettings()
    """The API of pipelines (`openanomaly api`)."""
    playground: PlaygroundSettings = PlaygroundSettings()
    """A page to try pipelines on (`openanomaly playground`)."""
    log: LogSettings = LogSettings()
    """What the process tells."""
    store: StoreSettings = StoreSettings()
    """Where pipelines are defined."""
    presets: tuple[Annotated[str, Field(json_schema_extra=_known)], ...] = ()
    """Pipelines that come with the product, by name (`openanomaly preset list`); yours stand beside them."""
    pipelines: tuple[Pipeline, ...] = (Pipeline(name="default"),)
    """What is watched, and how; with `presets` only what is defined."""

    @field_validator("window")
    @classmethod
    def _outlives_labels(cls, value: WindowSettings, info: ValidationInfo) -> WindowSettings:
        receiver = info.data.get("receiver")
        if receiver is not None and value.idle_ttl_s < 2 * receiver.labels_every_s:
            raise ValueError(
                f"idle_ttl_s={value.idle_ttl_s:g} is less than twice receiver.labels_every_s="
                f"{receiver.labels_every_s:g}: a series that comes back would be unknown for a while"
            )
        return value

    @field_validator("presets")
    @classmethod
    def _are_presets(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for i, name in enumerate(value):
            if name in value[:i]:
                raise ValueError(f"{name!r} is there twice")
            try:
                presets.pipelines(name)
            except ConfigError as exc:
                raise ValueError(str(exc)) from exc
        return value

    @field_validator("pipelines")
    @classmethod
    def _different(cls, value: tuple[Pipeline, ...]) -> tuple[Pipeline, ...]:
        if not value:
            raise ValueError("at least one is needed")
        seen: set[str] = set()
        for i, pipeline in enumerate(value):
            if pipeline.name in seen:
                raise ValueError(f"pipelines.{i}.name = {pipeline.name!r}: the name is used twice")
            seen.add(pipeline.name)
        return value

    @model_validator(mode="after")
    def _defined_once(self) -> Self:
        if self.store.url is not None and "pipelines" in self.model_fields_set:
            raise ValueError(
                f"store.url={stores.shown(self.store.url)!r} and pipelines exclude each other: pipelines are "
                "defined in the store or here"
            )
        return self

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        try:
            self.watched()
        except ConfigError as exc:
            raise ValueError(str(exc)) from exc
        return self

    def watched(self, stored: tuple[Pipeline, ...] | None = None) -> tuple[Pipeline, ...]:
        """Every pipeline that runs: those defined here, or `stored` by a store, and those of presets.

        Raises:
            ConfigError: a name is used twice.
        """
        if stored is not None:
            return presets.beside(stored, self.presets)
        is_default = "pipelines" not in self.model_fields_set
        return presets.beside(() if self.presets and is_default else self.pipelines, self.presets)


__all__ = [
    "ApiSettings", "AuthSettings", "BackfillSettings", "BrokerSettings", "InferenceSettings", "LogSettings",
    "PlaygroundSettings", "PullSettings", "ReceiverSettings", "Secret", "ServerSettings", "Settings",
    "SinkSettings", "StatusSettings", "StoreSettings", "TlsServerSettings", "WebSettings", "WindowSettings",
]  # fmt: skip
