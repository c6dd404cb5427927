"""The composition root: settings in, adapters chosen, roles joined. Start here.

One process holds the Faust apps of its roles and one web server, all in one event loop. Roles meet
only through topics, so `run` and four separate processes do the same.
"""

import asyncio
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import uvloop

from openanomaly.adapters.engines import make_engines
from openanomaly.agents.backfill import Backfill
from openanomaly.agents.groups import GroupsWorker
from openanomaly.agents.inference import create_inference
from openanomaly.agents.ingest import create_receiver
from openanomaly.agents.installation import broker_config, topics_of
from openanomaly.agents.reload import PipelinesInForce, aside, at_once
from openanomaly.agents.sink import check_target, create_sink
from openanomaly.agents.window import WindowWorker
from openanomaly.broker.dead_letter import DeadLetters
from openanomaly.broker.faust_app import (
    App,
    Role,
    broker_url,
    credentials,
    expired_records,
    make_app,
)
from openanomaly.broker.follow import Follower
from openanomaly.broker.letters import Letters
from openanomaly.broker.runner import Runner
from openanomaly.broker.watchdog import Watchdog
from openanomaly.core import kernels
from openanomaly.core.anomalies.board import Board, Limits
from openanomaly.core.anomalies.report import gauges
from openanomaly.core.frames import ScoreFrame
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.ports.config_store import Definitions
from openanomaly.core.windows.plan import plan
from openanomaly.definitions import Changes
from openanomaly.errors import BrokerError, ConfigError, OpenAnomalyError
from openanomaly.exits import CONFIG, CRASH
from openanomaly.settings import Settings
from openanomaly.settings.clients import database
from openanomaly.settings.sources import SUPERVISOR_VARIABLE
from openanomaly.telemetry import Telemetry
from openanomaly.web import auth, server
from openanomaly.web.admin import Admin
from openanomaly.web.dead_letters import DeadLetterDesk
from openanomaly.web.overview import Overview
from openanomaly.web.server import Health, WebServer
from openanomaly.web.status import StatusPage

if TYPE_CHECKING:
    from openanomaly.adapters.prometheus import PrometheusAdapter

log = logging.getLogger(__name__)

_STOP_S = 10.0
_WRITE = "/api/v1/write"


def main(settings: Settings, roles: Sequence[str], changes: Changes | None = None) -> int:
    """Run roles until told to stop; the exit status. `changes` tells of other pipelines."""
    try:
        _check_streamed(settings.pipelines)
        uvloop.run(Process(settings, roles, changes).run())
    except OpenAnomalyError as exc:
        log.error("%s", exc)
        return CONFIG if isinstance(exc, ConfigError | BrokerError) else CRASH
    except Exception:
        log.exception("crashed")
        return CRASH
    return 0


def check(settings: Settings, roles: Sequence[str]) -> list[str]:
    """What would be started, after checking what can be checked without starting it.

    Models are loaded where they forecast only: the other roles have neither torch nor a GPU.

    Raises:
        ConfigError: a selector, a certificate, a secret file, a model or a broker setting cannot be used, or
            what a role needs is not installed.
    """
    server.tls_context(settings.web.tls)
    auth.middleware(settings.web)
    config = broker_config(settings.broker)
    credentials(config)
    broker_url(config)
    out = [f"web server on {settings.web.listen}", f"broker {settings.broker.url}"]
    _check_streamed(settings.pipelines)
    for block in plan(settings.pipelines):
        if block.spec.is_of_groups:
            continue
        names = ", ".join(p.name for p in block.pipelines)
        spec = block.spec
        out.append(f"windows of {spec.context} steps of {spec.step_ms / 1000:g} s: pipelines {names}")
    if "window" in roles and (history := _history(settings)) is not None:
        out.append(f"new series learn from {history.shown}")
        history.close()
    if "inference" in roles:
        models = [p.model for p in settings.pipelines if p.query is None]
        engines = make_engines(
            models, device=settings.inference.device, precision=settings.inference.precision
        )
        out += [f"model {model}: {engine.name}" for model, engine in engines.items()]
    target = check_target(settings.sink)
    out.append(f"scores to {target}" if target else "scores are counted, not written")
    return out


def _history(settings: Settings) -> "PrometheusAdapter | None":
    """The database that new series learn from, if there is to be one.

    Raises:
        ConfigError: as `database`.
    """
    return database(settings) if settings.backfill.history_s else None


def _check_streamed(pipelines: Sequence[Pipeline]) -> None:
    if pipelines and all(p.query is not None for p in pipelines):
        raise ConfigError("every pipeline has a query: `openanomaly pull` runs those; give one a selector")


def _as_they_are(pipelines: Sequence[Pipeline]) -> Callable[[], None]:
    _check_streamed(pipelines)
    return lambda: None


class Process:
    """The roles of one process, joined."""

    def __init__(self, settings: Settings, roles: Sequence[str], changes: Changes | None = None) -> None:
        self.settings = settings
        self.telemetry = Telemetry()
        self.health = Health()
        self.running = PipelinesInForce(settings.pipelines, self.telemetry.reload)
        self.running.tell(at_once(_as_they_are))
        self.admin = Admin(settings, lambda: self.running.pipelines)
        self._changes = changes
        self.web = WebServer(settings.web, self.telemetry.registry, self.health)
        broker = settings.broker
        self.topics = topics_of(broker)
        self._config = broker_config(broker)
        self._compress = broker.compression == "zstd"
        self._roles = roles
        self._apps: list[App] = []
        self._watchdogs: list[Watchdog] = []
        self._stops: list[Callable[[], Awaitable[None]]] = []
        self._followers: list[Follower] = []
        self._backfill: Backfill | None = None
        self._is_stopping = False

    async def run(self) -> None:
        """Serve until SIGTERM, SIGINT, or the end of the supervisor.

        Raises:
            OpenAnomalyError, Exception: why the process cannot go on.
        """
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        if not {"receiver", "window"}.isdisjoint(self._roles):
            kernels.warm_up_aside()
        for role in self._roles:
            getattr(self, f"_add_{role}")()
        self.admin.report("pipelines", self.running.status)
        self.admin.register(self.web)
        # Any app is connected to the broker: whichever process is asked can answer.
        DeadLetterDesk(Letters(self._apps[0], self.topics)).register(self.web)
        self.health.ready["process"] = lambda: "stopping" if self._is_stopping else None
        self._runner = Runner(self._apps)
        tasks = [asyncio.create_task(_watch_parent(stop), name="watch parent")]
        try:
            await self._runner.ensure_topics()
            self._runner.start()
            await self.web.start()
            tasks += [asyncio.create_task(dog.watch(), name="watchdog") for dog in self._watchdogs]
            tasks += [asyncio.create_task(each.run(), name="status") for each in self._followers]
            tasks.append(asyncio.create_task(self._tell_readiness(), name="readiness"))
            if self._backfill is not None:
                tasks.append(asyncio.create_task(self._backfill.run(), name="backfill"))
            if self._changes is not None:
                tasks.append(asyncio.create_task(self._follow(self._changes()), name="reload"))
            log.info("%s: %s", ", ".join(self._roles), self.settings.broker.url)
            self._tell_next_steps()
            await self._runner.wait(stop)
            log.info("stopping")
        finally:
            for task in tasks:
                task.cancel()
            await self._stop(is_clean=stop.is_set())

    async def _follow(self, changes: AsyncIterator[Definitions]) -> None:
        """Take over other pipelines as they are told, but not while roles are starting."""
        while not all(app.is_up for app in self._apps):  # noqa: ASYNC110 (Faust tells nobody)
            await asyncio.sleep(0.1)
        await self.running.follow(changes)

    def _tell_next_steps(self) -> None:
        if "receiver" in self._roles:
            log.info("push remote-write to %s%s", self.web.url, _WRITE)
        if "sink" in self._roles:
            log.info("status page: %s/", self.web.url)
        if "sink" in self._roles and self.settings.sink.url is None:
            log.warning("scores are counted and not written: set sink.url or --write-to")
        if self._config.is_embedded and len(self._roles) == 1:
            log.warning(
                "nobody else can read %s: run all roles with `openanomaly run`, or set broker.url=kafka://",
                self.settings.broker.url,
            )

    async def _stop(self, is_clean: bool) -> None:
        """Answer what was asked, finish what was begun, let go of the broker; within 10 s."""
        self._is_stopping = True
        try:
            async with asyncio.timeout(_STOP_S):
                await self.web.stop()
                if is_clean:
                    for stop in self._stops:
                        await stop()
                    await self._runner.commit()
                await self._runner.stop()
        except TimeoutError:
            # Nothing is lost: what was not finished is read again by whoever comes next.
            log.error("not stopped within %.0f s; ending as it is", _STOP_S)
        except Exception:
            log.exception("while stopping")

    # -- roles -----------------------------------------------------------------------------------

    def _app(self, role: Role) -> App:
        app = make_app(role, self._config)
        self._apps.append(app)
        return app

    def _watch(self, app: App, is_held_up: Callable[[], bool] = lambda: False) -> None:
        lag = self.telemetry.lag

        def report(role: str, topic: str, unread: int, seconds: float) -> None:
            lag.records.labels(role, topic).set(unread)
            lag.oldest_seconds.labels(role, topic).set(seconds)

        self._watchdogs.append(Watchdog(app, report, is_held_up))
        lag.watch(app.role, lambda: expired_records(app))

    def _add_receiver(self) -> None:
        app = self._app("ingest")
        receiver = create_receiver(
            app,
            self.settings.receiver,
            self.settings.pipelines,
            self.topics,
            self.telemetry.receiver,
            compress=self._compress,
        )
        self.running.tell(at_once(receiver.prepare))
        self.web.post(_WRITE, receiver.handle)
        self._stops.append(receiver.stop)

        def waits_for() -> str | None:
            if not app.is_up:
                return "the broker is not connected"
            return None if kernels.settled() else "functions are being compiled"

        self.health.ready["receiver"] = waits_for

    def _add_window(self) -> None:
        app = self._app("window")
        sink = self.settings.sink
        history = _history(self.settings)
        worker = WindowWorker(
            app,
            self.settings.window,
            self.settings.pipelines,
            self.topics,
            self.telemetry.window,
            DeadLetters(app, self.topics),
            emit=sink.emit,
            emit_all_limit=sink.emit_all_limit,
            compress=self._compress,
            has_history=history is not None,
        )
        GroupsWorker(app, self.topics, self.telemetry.groups, DeadLetters(app, self.topics))
        self.telemetry.groups.watch(worker.share_outcomes, worker.groups)
        if history is not None:
            self._backfill = Backfill(
                history, self.settings.backfill, lambda: worker.lanes, self.telemetry.backfill
            )
        self._watch(app)
        self._stops.append(worker.stop)
        self.running.tell(at_once(worker.prepare))
        self.admin.report("window", worker.status)
        self.admin.explain(worker.explain, worker.count)
        self.health.ready["window"] = lambda: None if worker.is_recovered else "windows are recovering"

    def _add_inference(self) -> None:
        app = self._app("infer")
        worker = create_inference(
            app, self.settings.inference, self.settings.pipelines, self.topics, self.telemetry.inference
        )
        self._watch(app, worker.is_held_up)
        self._stops.append(worker.stop)
        self.running.tell(aside(worker.prepare))
        self.admin.report("inference", worker.status)

        def waits_for() -> str | None:
            return worker.failing if app.is_up else "the broker is not connected"

        self.health.ready["inference"] = waits_for

    def _add_sink(self) -> None:
        app = self._app("sink")
        worker = create_sink(
            app,
            self.settings.sink,
            self.topics,
            self.telemetry.sink,
            DeadLetters(app, self.topics),
            self.settings.pipelines,
        )
        # While the target is down nothing can be read on, and a restart would not help.
        self._watch(app, lambda: not worker.is_up)
        self._stops.append(worker.stop)
        self.running.tell(at_once(worker.prepare))
        self.admin.report("sink", worker.status)

        def waits_for() -> str | None:
            if not app.is_up:
                return "the broker is not connected"
            return None if worker.is_up else "the target does not take scores"

        self.health.ready["sink"] = waits_for
        self._add_status(app)

    def _add_status(self, app: App) -> None:
        """The status page: it reads every partition's scores, whichever of them this sink writes."""
        settings = self.settings.status
        board = Board(
            Limits(
                series=settings.series_limit,
                lead_steps=settings.lead_steps,
                anomalies=settings.anomalies_limit,
                steps=settings.steps,
                recent_ms=round(settings.recent_s * 1000),
            )
        )

        def take(partition: int, record: bytes, is_live: bool) -> None:
            board.take(ScoreFrame.decode(record), int(time.time() * 1000), partition, is_live)

        self.running.tell(at_once(lambda wanted: partial(board.keep_only, [p.name for p in wanted])))
        follower = Follower(app, self.topics.scores, take, settings.lead_s)
        self._followers.append(follower)
        self.telemetry.status.watch(
            lambda: {**board.counts, **follower.counts()},
            lambda: {**gauges(board), **follower.gauges()},
        )
        overview = Overview(
            self.settings,
            self._roles,
            self.telemetry,
            self.health,
            self.admin.reports,
            follower,
            lambda: self.running.pipelines,
        )
        StatusPage(board, lambda: self.running.names, overview).register(self.web)

    async def _tell_readiness(self) -> None:
        while True:
            for role, check in self.health.ready.items():
                self.telemetry.is_ready.labels(role).set(check() is None)
            await asyncio.sleep(1.0)


async def _watch_parent(stop: asyncio.Event) -> None:
    """Stop when the supervisor has gone: nobody would start us again, nor stop us."""
    parent = os.environ.get(SUPERVISOR_VARIABLE)
    if parent is None:
        return
    while os.getppid() == int(parent):  # noqa: ASYNC110 (nothing tells of a parent's end)
        await asyncio.sleep(1.0)
    log.error("the supervisor (process %s) has ended; stopping", parent)
    stop.set()
