"""Where a process has its pipelines from: the settings, or a store that they name."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable

from openanomaly.adapters import stores
from openanomaly.core.ports.config_store import Definitions
from openanomaly.errors import ConfigError, StoreUnavailableError
from openanomaly.settings import Settings, watch

log = logging.getLogger(__name__)

Changes = Callable[[], AsyncIterator[Definitions]]
_RETRY_S = 5.0


def filled(settings: Settings, *, wait: bool = False) -> Settings:
    """The settings with the pipelines of the store, as they are now.

    Args:
        wait: for a store that cannot be reached, and for its first pipeline.

    Raises:
        ConfigError: a pipeline cannot be used; there is none, or the store cannot be reached, and that is not
            waited for.
    """
    if settings.store.url is None:
        return settings
    found = asyncio.run(_read(settings, wait=wait))
    if found.problems:
        raise ConfigError("\n".join(found.problems))
    if not found.pipelines:
        nothing = f"there is no pipeline in {stores.shown(settings.store.url)}"
        if not wait:
            raise ConfigError(f"{nothing}: at least one is needed")
        log.warning("%s: nothing is watched until there is one", nothing)
    return settings.model_copy(update={"pipelines": found.pipelines})


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
        return lambda: stores.make_store(url, settings.store.poll_s).watch()
    if not os.path.exists(file):
        return None
    return lambda: watch.watch(file, read, settings, settings.store.poll_s)
