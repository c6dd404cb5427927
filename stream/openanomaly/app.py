"""The composition root: settings in, adapters chosen, roles joined. Start here.

One process holds the Faust apps of its roles and one web server, all in one event loop. They meet
only through topics, so `run` and four separate processes do the same.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import uvloop

from openanomaly.broker.faust_app import BrokerConfig, make_app
from openanomaly.broker.runner import run_apps
from openanomaly.broker.topics import Topics, topics
from openanomaly.core.windows.plan import plan
from openanomaly.errors import ConfigError, OpenAnomalyError
from openanomaly.exits import CONFIG, CRASH
from openanomaly.settings import BrokerSettings, Settings
from openanomaly.telemetry import Telemetry
from openanomaly.web.admin import Admin
from openanomaly.web.server import Health, WebServer, tls_context

log = logging.getLogger(__name__)


def main(settings: Settings, roles: Sequence[str]) -> int:
    """Run roles until told to stop; the exit status."""
    try:
        uvloop.run(run(settings, roles))
    except OpenAnomalyError as exc:
        log.error("%s", exc)
        return CONFIG if isinstance(exc, ConfigError) else CRASH
    except Exception:
        log.exception("crashed")
        return CRASH
    return 0


def check(settings: Settings) -> list[str]:
    """What would be started, after checking what can be checked without starting it.

    Raises:
        ConfigError: a selector, a certificate or a broker setting cannot be used.
    """
    tls_context(settings.web.tls)
    out = [f"web server on {settings.web.listen}", f"broker {settings.broker.url}"]
    for block in plan(settings.pipelines):
        names = ", ".join(p.name for p in block.pipelines)
        out.append(f"{block.spec}: pipelines {names}")
    out.append(f"scores to {settings.sink.url}" if settings.sink.url else "scores are counted, not written")
    return out


class Process:
    """The roles of one process, joined."""

    def __init__(self, settings: Settings, roles: Sequence[str]) -> None:
        self.settings = settings
        self.telemetry = Telemetry()
        self.health = Health()
        self.admin = Admin(settings)
        self.web = WebServer(settings.web, self.telemetry.registry, self.health)
        self.topics: Topics = _topics(settings.broker)
        self.apps: list[Any] = []
        self._config = broker_config(settings.broker)
        self._stops: list[Callable[[], Any]] = []
        for role in roles:
            getattr(self, f"_add_{role}")()
        self.admin.register(self.web)
