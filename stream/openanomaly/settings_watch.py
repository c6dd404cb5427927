"""Pipelines of the settings file, again after each change of it."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable

from openanomaly.core.ports.config_store import Definitions, Stored
from openanomaly.errors import ConfigError
from openanomaly.settings import Settings

log = logging.getLogger(__name__)

_GONE = "", 0, 0, 0
_SETTLED_S = 0.2


async def watch(
    file: str, read: Callable[[], Settings], current: Settings, every_s: float
) -> AsyncIterator[Definitions]:
    """What `read` finds now, and after each change of `file`; without end.

    Only pipelines change while a process runs. That other settings have changed is logged.
    """
    seen = None
    while True:
        if seen is not None:
            await asyncio.sleep(every_s)
        if (stamp := _stamp(file) or seen or _GONE) == seen:
            continue  # one that is gone is about to be replaced, or somebody's mistake
        if seen is not None:
            # What an editor has half written may be valid, and would take pipelines away.
            await asyncio.sleep(_SETTLED_S)
            if _stamp(file) != stamp:
                continue
        seen = stamp
        try:
            settings = read()
        except ConfigError as exc:
            yield Definitions((), tuple(str(exc).splitlines()))
            continue
        if settings.model_copy(update={"pipelines": ()}) != current.model_copy(update={"pipelines": ()}):
            log.warning("%s: other settings than pipelines have changed; they hold after a restart", file)
        yield Definitions(tuple(Stored(pipeline, "") for pipeline in settings.pipelines))


def _stamp(file: str) -> tuple[str, int, int, int] | None:
    """Another one after each change, also where a symbolic link leads elsewhere (ConfigMaps)."""
    try:
        path = os.path.realpath(file)
        found = os.stat(path)
    except OSError:
        return None
    return path, found.st_mtime_ns, found.st_size, found.st_ino
