"""The composition root of pull mode: settings in, a database and a scheduler chosen, pipelines run.

It needs no broker. One process has the web server in its event loop, and pipelines in threads.
"""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

import uvloop

from openanomaly.adapters.apscheduler import APSchedulerAdapter
from openanomaly.adapters.engines import make_engines
from openanomaly.adapters.prometheus import PrometheusAdapter
from openanomaly.adapters.state_files import StateFiles
from openanomaly.agents.reload import PipelinesInForce, aside
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.ports.model_engine import ModelEngine
from openanomaly.core.services.answer import Watch
from openanomaly.core.services.inference_loop import InferenceLoop
from openanomaly.core.services.local import LocalScoring
from openanomaly.core.services.pull_report import PullOptions, Report
from openanomaly.core.windows.output import Emit
from openanomaly.definitions import Changes
from openanomaly.errors import ConfigError, OpenAnomalyError
from openanomaly.exits import CONFIG, CRASH
from openanomaly.settings import Settings
from openanomaly.settings.clients import database
from openanomaly.telemetry import PULL_LOST, InferenceMetrics, PullMetrics, Telemetry
from openanomaly.web import auth, server
from openanomaly.web.admin import Admin
from openanomaly.web.server import Health, WebServer

log = logging.getLogger(__name__)

_STOP_S = 8.0


def main(settings: Settings, changes: Changes | None = None) -> int:
    """Run until told to stop; the exit status. `changes` tells of other pipelines."""
    try:
        process = PullProcess(settings, changes)
        is_over = uvloop.run(process.run())
    except OpenAnomalyError as exc:
        log.error("%s", exc)
        return CONFIG if isinstance(exc, ConfigError) else CRASH
    except Exception:
        log.exception("crashed")
        return CRASH
    if not is_over:
        # A thread waits for a server, and Python would wait for the thread. What it does is done again.
        logging.shutdown()
        os._exit(0)
    return 0


def check(settings: Settings) -> list[str]:
    """What would be started, after checking what can be checked without starting it.

    Raises:
        ConfigError: nothing is to be asked, or a certificate or a secret file cannot be used.
    """
    server.tls_context(settings.web.tls)
    auth.middleware(settings.web)
    pipelines = pulled(settings.pipelines)
    client = make_client(settings)
    out = [f"web server on {settings.web.listen}", f"queries to {client.shown}"]
    out += [f"pipeline {p.name}: every {p.step_s:g} s {p.query}" for p in pipelines]
    engines = _engines(settings, pipelines)
    out += [f"model {model}: {engine.name}" for model, engine in engines.items()]
    out.append(
        f"scores to {client.target_shown}" if client.target_shown else "scores are counted, not written"
    )
    client.close()
    return out


def pulled(pipelines: Sequence[Pipeline]) -> list[Pipeline]:
    """The pipelines of pull mode.

    Raises:
        ConfigError: there are none.
    """
    found = [p for p in pipelines if p.query is not None]
    if pipelines and not found:
        raise ConfigError("no pipeline has a query: pull mode has nothing to ask; set pipelines.0.query")
    return found


def make_client(settings: Settings, metrics: PullMetrics | None = None) -> PrometheusAdapter:
    """The database that is asked, with the sink's target.

    Raises:
        ConfigError: it is not set, or a certificate or a secret file cannot be used.
    """

    def observe(what: str, code: str, seconds: float) -> None:
        if metrics is not None:
            metrics.requests.labels(what, code).inc()
            metrics.request_seconds.labels(what).observe(seconds)

    client = database(settings, observe, writes=True)
    if client is None:
        raise ConfigError("pull.url is not set: the address of the database to ask, http://HOST:PORT")
    return client


def _engines(settings: Settings, pipelines: list[Pipeline]) -> dict[str, ModelEngine]:
    inference = settings.inference
    return make_engines(
        [p.model for p in pipelines], inference.threads, inference.device, inference.precision
    )


class PullProcess:
    """Pipelines with a query, joined with what they need."""

    def __init__(self, settings: Settings, changes: Changes | None = None) -> None:
        self.settings = settings
        self.telemetry = Telemetry()
        self.health = Health()
        self.running = PipelinesInForce(settings.pipelines, self.telemetry.reload)
        self.running.tell(aside(self._prepare))
        self._changes = changes
        self.admin = Admin(settings, lambda: self.running.pipelines)
        self.web = WebServer(settings.web, self.telemetry.registry, self.health)
        pipelines = pulled(settings.pipelines)
        metrics, pull = self.telemetry.pull, settings.pull
        self._client = make_client(settings, metrics)
        engines = self._engines = _engines(settings, pipelines)
        self.telemetry.inference.engines(engines)
        watch = Watch(_Inference(self.telemetry.inference), time.monotonic)
        self._states = StateFiles(pull.state_dir)
        window, inference = settings.window, settings.inference
        self._scheduler = APSchedulerAdapter(
            pull.concurrency, lambda name: metrics.late_runs.labels(name).inc()
        )
        self._loop = InferenceLoop(
            self._client,
            self._states,
            self._scheduler,
            lambda pipeline: LocalScoring([pipeline], engines, window.max_series, inference.max_batch, watch),
            PullOptions(
                pull.history_s, pull.catch_up_s, pull.pending_limit, pull.series_limit, window.idle_ttl_s
            ),
            _Meter(metrics),
            now_ms=lambda: int(time.time() * 1000),
            emit=self._emit,
        )
        self._loop.define(pipelines)
        self._is_stopping = False

    def _emit(self, series: int) -> Emit:
        sink = self.settings.sink
        if sink.emit == "auto":
            return "all" if series <= sink.emit_all_limit else "episodes"
        return sink.emit

    def _prepare(self, pipelines: Sequence[Pipeline]) -> Callable[[], None]:
        """What makes it ask for other pipelines."""
        new = [p for p in pulled(pipelines) if p.model not in self._engines]
        engines = _engines(self.settings, new)

        def change() -> None:
            self._engines.update(engines)
            self.telemetry.inference.engines(self._engines)
            self._client.redefine(pipelines)
            self._loop.define(pipelines)

        return change

    async def run(self) -> bool:
        """Serve until SIGTERM or SIGINT; whether all that ran has ended.

        Raises:
            ConfigError: the web server cannot listen.
        """
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        self.admin.report("pull", self._loop.status)
        self.admin.report("pipelines", self.running.status)
        self.admin.register(self.web)
        self.health.ready["process"] = lambda: "stopping" if self._is_stopping else None
        self.health.ready["pull"] = self._loop.waits_for
        self.telemetry.is_ready.labels("pull").set_function(lambda: self._loop.waits_for() is None)
        await self.web.start()
        self._scheduler.start()
        log.info("pull: %s", self._client.shown)
        if self._client.target_shown is None:
            log.warning("scores are counted and not written: set sink.url or --write-to")
        following = None
        if self._changes is not None:
            following = asyncio.create_task(self.running.follow(self._changes()), name="reload")
        await stop.wait()
        log.info("stopping")
        if following is not None:
            following.cancel()
        self._is_stopping = True
        self._client.close()
        is_over, _ = await asyncio.gather(asyncio.to_thread(self._scheduler.stop, _STOP_S), self.web.stop())
        if is_over:
            self._states.close()
        else:
            log.error("not stopped within %.0f s; ending as it is", _STOP_S)
        return is_over


class _Inference:
    """Counts what engines do (core/services/answer.py, Watch)."""

    def __init__(self, metrics: InferenceMetrics) -> None:
        self._metrics = metrics
        self.batch = metrics.batch

    def forecast(self, rows: int) -> None:
        self._metrics.contexts.inc(rows)
        self._metrics.forecast(rows)

    def dropped(self, reason: str, rows: int) -> None:
        self._metrics.contexts.inc(rows)
        self._metrics.dropped(reason, rows)


class _Meter:
    """Counts what runs report (core/services/inference_loop.py, Observer)."""

    def __init__(self, metrics: PullMetrics) -> None:
        self._metrics = metrics

    def ran(self, pipeline: str, report: Report, pending: int, series: int, done_ms: int | None) -> None:
        m = self._metrics
        m.runs.labels(pipeline, report.outcome).inc()
        added: list[tuple[Any, int]] = [
            (m.steps, report.steps),
            (m.skipped, report.skipped),
            (m.samples, report.samples),
            (m.scores, report.scores),
            (m.written, report.written.scores),
        ]
        for counter, count in added:
            counter.labels(pipeline).inc(count)
        for reason in PULL_LOST:
            m.lost.labels(reason).inc(report.counts[reason])
        m.dropped.labels("history").inc(report.history)
        for reason, count in report.written.dropped.items():
            m.dropped.labels(reason).inc(count)
        m.pending.labels(pipeline).set(pending)
        m.series.labels(pipeline).set(series)
        if done_ms is not None:
            m.newest.labels(pipeline).set(done_ms / 1000)
