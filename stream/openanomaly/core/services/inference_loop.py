"""Pull mode: every pipeline with a query, at the end of each of its steps."""

import functools
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.ports.scheduler import Scheduler
from openanomaly.core.ports.tsdb_client import TSDBClient
from openanomaly.core.services.pull_report import PullOptions, Report
from openanomaly.core.services.pull_state import StateStore
from openanomaly.core.services.pulled import MakeScoring, PulledPipeline
from openanomaly.core.windows.output import Emit

log = logging.getLogger(__name__)


class Observer(Protocol):
    """Hears of each run. Called from several threads, one at a time for a pipeline."""

    def ran(self, pipeline: str, report: Report, pending: int, series: int, done_ms: int | None) -> None: ...


class InferenceLoop:
    """Runs pipelines side by side: what fails in one does not stop the others."""

    def __init__(
        self,
        client: TSDBClient,
        store: StateStore,
        scheduler: Scheduler,
        make_scoring: MakeScoring,
        options: PullOptions,
        observer: Observer,
        now_ms: Callable[[], int],
        emit: Callable[[int], Emit] = lambda series: "all",
    ) -> None:
        """
        Args:
            now_ms: the wall clock.
            emit: which scores are written, given how many series there are in all.
        """
        self._make = functools.partial(
            PulledPipeline,
            client=client,
            store=store,
            make_scoring=make_scoring,
            turn=threading.Lock(),
            options=options,
        )
        self._scheduler = scheduler
        self._observer = observer
        self._now_ms = now_ms
        self._emit = emit
        self._pulled: Mapping[str, PulledPipeline] = {}
        self._reports: dict[str, Report] = {}

    def define(self, pipelines: Sequence[Pipeline]) -> None:
        """Run these from now on, each when a step of it can be asked for; those without a query are left out.

        One that is as before goes on undisturbed. One that has changed goes on from its state, where that is
        of the same query and step. A run that is at work ends as it began.
        """
        before = self._pulled
        wanted = {p.name: p for p in pipelines if p.query is not None}
        changed = {n: p for n, p in wanted.items() if n not in before or before[n].pipeline != p}
        # A new mapping: runs in other threads look into the one they have.
        self._pulled = {n: self._make(p) if n in changed else before[n] for n, p in wanted.items()}
        for name in before.keys() - wanted.keys():
            self._scheduler.remove(name)
            self._reports.pop(name, None)
        for name, pipeline in changed.items():
            self._reports.pop(name, None)
            offset_ms = round(pipeline.lateness_s * 1000) % pipeline.step_ms
            self._scheduler.every(name, pipeline.step_ms, offset_ms, functools.partial(self.run, name))

    def run(self, name: str) -> None:
        """One run of a pipeline, if there is one of that name; never raises."""
        everything = self._pulled
        pulled = everything.get(name)
        if pulled is None:
            return
        try:
            report = pulled.run(self._now_ms(), self._emit(sum(p.series for p in everything.values())))
        except Exception as exc:
            # It may stand in the middle of a step. What is saved does not: that is done again.
            log.exception("pipeline %s crashed; it goes on from what is saved", name)
            pulled.reset()
            report = Report(outcome="crashed", error=f"{type(exc).__name__}: {exc}")
        if self._pulled.get(name) is pulled:
            self._tell(name, report)
            self._reports[name] = report
        self._observer.ran(name, report, pulled.pending, pulled.series, pulled.done_ms)

    def _tell(self, name: str, report: Report) -> None:
        before = self._reports.get(name)
        if report.outcome not in ("ok", "crashed") and (before is None or before.error != report.error):
            log.warning("pipeline %s: %s", name, report.error)
        if report.outcome == "ok" and before is not None and before.outcome != "ok":
            log.info("pipeline %s works again", name)

    def waits_for(self) -> str | None:
        """Why this is of no use now: nobody answers, or the target takes nothing; None if it is.

        A query that is refused is the business of its owner: the others are served.
        """
        reports = [self._reports.get(name) for name in self._pulled]
        if waiting := reports.count(None):
            return f"{waiting} of {len(reports)} pipelines have not run yet"
        done = [report for report in reports if report is not None]
        away = [r.error for r in done if r.outcome in ("unavailable", "target")]
        return away[0] if away and all(r.outcome != "ok" for r in done) else None

    def status(self) -> dict[str, Any]:
        """Each pipeline, for people."""
        return {name: self._of(name, pulled) for name, pulled in self._pulled.items()}

    def _of(self, name: str, pulled: PulledPipeline) -> dict[str, Any]:
        report = self._reports.get(name)
        return {
            "query": pulled.query,
            "outcome": report.outcome if report is not None else None,
            "error": (report.error or None) if report is not None else None,
            "newest_step_ms": pulled.done_ms,
            "series": pulled.series,
            "pending_scores": pulled.pending,
        }
