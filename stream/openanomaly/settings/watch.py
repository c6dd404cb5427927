"""Pipelines of the settings file, again after each change of it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from openanomaly.adapters import yaml_files
from openanomaly.core.ports.config_store import Definitions, Stored
from openanomaly.errors import ConfigError
from openanomaly.settings import Settings

log = logging.getLogger(__name__)

_GONE: yaml_files.Look = ()
_SETTLED_S = 0.2
_CHANGES = {"pipelines": (), "presets": ()}
"""What may change while a process runs, left out."""


async def watch(
    file: str, read: Callable[[], Settings], current: Settings, every_s: float
) -> AsyncIterator[Definitions]:
    """What `read` finds now, and after each change of `file`; without end.

    Only pipelines change while a process runs. That other settings have changed is logged.
    """
    seen: yaml_files.Look | None = None
    while True:
        if seen is not None:
            await asyncio.sleep(every_s)
        found = _look(file)
        if found == seen or (found == _GONE and seen is not None):
            continue  # one that is gone is about to be replaced, or somebody's mistake
        if seen is not None:
            # What an editor has half written may be valid, and would take pipelines away.
            await asyncio.sleep(_SETTLED_S)
            if _look(file) != found:
                continue
        seen = found
        try:
            settings = read()
        except ConfigError as exc:
            yield Definitions((), tuple(str(exc).splitlines()))
            continue
        if settings.model_copy(update=_CHANGES) != current.model_copy(update=_CHANGES):
            log.warning("%s: other settings than pipelines have changed; they hold after a restart", file)
        yield Definitions(tuple(Stored(pipeline, "") for pipeline in settings.watched()))


def _look(file: str) -> yaml_files.Look:
    """Another one after each change, also where a symbolic link leads elsewhere (ConfigMaps)."""
    try:
        return yaml_files.look(Path(file))
    except OSError:
        return _GONE
