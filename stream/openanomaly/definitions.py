"""Where a process has its pipelines from: the settings, or a store that they name; and presets."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable

from openanomaly.adapters import stores
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.ports.config_store import Definitions, Stored
from openanomaly.errors import ConfigError, StoreUnavailableError
from openanomaly.settings import Settings, watch

log = logging.getLogger(__name__)

Changes = Callable[[], AsyncIterator[Definitions]]
_RETRY_S = 5.0


def filled(settings: Settings, *, wait: bool = False) -> Settings:
    """The settings with every pipeline that runs: those of the store, as they are now, and of presets.

    Args:
        wait: for a store that cannot be reached, and for its first pipeline.

    Raises:
        ConfigError: a pipeline cannot be used, or a name is used twice; there is none, or the store cannot be
            reached, and that is not waited for.
    """
    pipelines = defined(settings, wait=wait)
    if not pipelines and (store := settings.store.url) is not None:
        nothing = f"there is no pipeline in {stores.shown(store)}"
        if not wait:
            raise ConfigError(f"{nothing}: at least one is needed")
        log.warning("%s: nothing is watched until there is one", nothing)
    return settings.model_copy(update={"pipelines": pipelines})


def defined(settings: Settings, *, wait: bool = False) -> tuple[Pipeline, ...]:
    """Every pipeline that runs with these settings, as it is defined now; a store may have none.

    Raises:
        ConfigError: as `filled` does, but for a store without a pipeline.
    """
    if settings.store.url is None:
        return settings.watched()
    found = asyncio.run(_read(settings, wait=wait))
    if found.problems:
        raise ConfigError("\n".join(found.problems))
    return settings.watched(found.pipelines)


async def _read(settings: Settings, *, wait: bool) -> Definitions:
    store = stores.make_store(str(settings.store.url), settings.store.poll_s)
    try:
        while True:
            try:
                return await store.read()
            except StoreUnavailableError as exc:
                if not wait:
                    raise ConfigError(str(exc)) from exc
                log.warning("waiting for pipelines: %s", exc)
                await asyncio.sleep(_RETRY_S)
    finally:
        await store.close()


def changes(settings: Settings, file: str, read: Callable[[], Settings]) -> Changes | None:
    """How a running process hears of other pipelines; None where nothing can tell of any.

    Args:
        file: of the settings.
        read: the settings anew.
    """
    if (url := settings.store.url) is not None:
        return lambda: _of_store(url, settings)
    if not os.path.exists(file):
        return None
    return lambda: watch.watch(file, read, settings, settings.store.poll_s)


async def _of_store(url: str, settings: Settings) -> AsyncIterator[Definitions]:
    """What a store tells, and the pipelines of presets."""
    async for found in stores.make_store(url, settings.store.poll_s).watch():
        try:
            every = settings.watched(found.pipelines)
        except ConfigError as exc:
            yield Definitions(found.stored, (*found.problems, str(exc)))
        else:
            shipped = tuple(Stored(pipeline, "") for pipeline in every[len(found.stored) :])
            yield Definitions(found.stored + shipped, found.problems)
