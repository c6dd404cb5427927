"""A backtest from its options to its files: input, scoring, output."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from openanomaly.adapters.engines import make_engines
from openanomaly.adapters.recordings import database, files, labels, naming
from openanomaly.adapters.recordings.scores import ScoreFile
from openanomaly.adapters.recordings.times import Style
from openanomaly.commands import backtest_pipeline as pipelines
from openanomaly.commands.progress import Progress
from openanomaly.core import kernels
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.ports.tsdb_client import TSDBClient
from openanomaly.core.recording import Recording, infer_step_ms
from openanomaly.core.scoring.events import Outcome
from openanomaly.core.scoring.reason import Reason
from openanomaly.core.services.backtest import Backtest
from openanomaly.core.services.backtest_summary import Summary
from openanomaly.errors import ConfigError, OpenAnomalyError, QueryRejectedError
from openanomaly.exits import CRASH
from openanomaly.reports import page as report
from openanomaly.settings import Settings, clients

_COMPILE_FROM = 2_000_000
"""Samples from which on compiling, which takes seconds, is made up for."""
_WORST = 5


def main(options: argparse.Namespace) -> int:
    """Run the command; its exit status.

    Raises:
        ConfigError: an option or a file is wrong.
    """
    try:
        job = _job(options)
        return _run(options, job)
    except ConfigError:
        raise
    except QueryRejectedError as exc:
        raise ConfigError(str(exc)) from exc
    except OpenAnomalyError as exc:
        print(f"openanomaly: {exc}", file=sys.stderr)
        return CRASH


@dataclass(frozen=True, slots=True)
class _Job:
    """What is to be scored, and how.

    `by_end` says that times are the ends of steps, as of queries, and not those of samples.
    """

    name: str
    recording: Recording
    pipeline: Pipeline
    style: Style
    by_end: bool = False


def _job(options: argparse.Namespace) -> _Job:
    settings = pipelines.settings_of(options)
    base = pipelines.chosen(options, settings)
    is_asked = (
        options.tsdb is not None or options.query is not None or (options.input is None and base is not None)
    )
    if is_asked == (options.input is not None):
        raise ConfigError("name a file or a folder; or a database, with --tsdb and --query or --pipeline")
    given = {} if options.model is None else {"model": options.model}
    if options.step is not None:
        given["step_s"] = options.step
    if is_asked:
        return _of_database(options, settings, base, given)
    recording, style = files.read(options.input)
    is_step_known = base is not None or "step_s" in given or "step_s" in pipelines.names_set(options.set)
    if not is_step_known:
        given["step_s"] = infer_step_ms(recording.series) / 1000
    if base is not None and base.query is not None:
        base = base.scored
    pipeline = pipelines.with_options(base or Pipeline(name="backtest"), given, options.set)
    return _Job(str(options.input), recording, pipeline, style)


def _of_database(
    options: argparse.Namespace, settings: Settings, base: Pipeline | None, given: dict[str, Any]
) -> _Job:
    if options.start is None:
        raise ConfigError("a database is asked from a time on: give --start")
    if options.query is not None:
        given |= {"query": options.query}
        if base is not None and base.query is None:
            base = base.model_copy(update={"selector": Pipeline(name="x").selector, "transform": "auto"})
    pipeline = pipelines.with_options(base or Pipeline(name="backtest"), given, options.set)
    if base is None and pipeline.query is None:
        raise ConfigError("say what to ask for: --query, or --pipeline with --config")
    end_ms = round(time.time() * 1000) if options.end is None else options.end
    if end_ms <= options.start:
        raise ConfigError(f"--end {end_ms} ms is not behind --start {options.start} ms")
    client = _client(settings)
    try:
        if pipeline.query is None:
            recording = database.stored(client, pipeline.selector, options.start, end_ms, _tell)
            return _Job(pipeline.selector, recording, pipeline, "iso")
        found = database.query(client, pipeline.query, options.start, end_ms, pipeline.step_ms, _tell)
        return _Job(pipeline.query, found, pipeline.scored, "iso", by_end=True)
    finally:
        client.close()


def _client(settings: Settings) -> TSDBClient:
    client = clients.database(settings)
    if client is None:
        raise ConfigError("name the database: --tsdb http://HOST:PORT, or pull.url in --config")
    return client


def _run(options: argparse.Namespace, job: _Job) -> int:
    recording, pipeline = job.recording, job.pipeline
    if options.labels is not None:
        recording = replace(recording, events=labels.read(options.labels, recording))
    if options.report is not None:
        report.check(options.report)
    names = [naming.show(series.labels) for series in recording.series]
    _tell(_described(job, recording))
    if recording.samples >= _COMPILE_FROM:
        kernels.warm_up_windows()
    engines = make_engines([pipeline.model], options.threads)
    test = Backtest(pipeline, engines, recording.series)
    summary = Summary(
        len(names),
        pipeline.step_ms,
        _span(recording),
        curves=options.report is not None,
        known=recording.events,
        alert_score=pipeline.score.alert_score,
        by_end=job.by_end,
    )
    began_s = time.monotonic()
    progress = Progress(sys.stderr, test.samples, "samples")
    try:
        with ExitStack() as stack:
            out = None
            if options.out is not None:
                out = stack.enter_context(ScoreFile(options.out, names, job.style, job.by_end))
            for steps in test.run():
                summary.add(steps)
                if out is not None:
                    out.add(steps)
                progress.at(steps.done)
    finally:
        progress.close()
    seconds = max(time.monotonic() - began_s, 1e-3)
    outcome = summary.finish()
    figures = _figures(summary, test, names, outcome, seconds)
    if options.report is not None:
        report.write(options.report, report.Facts(job.name, pipeline, names, summary, outcome, seconds))
    print(json.dumps(figures, indent=2) if options.json else _text(figures, names, summary))
    for file in filter(None, (options.out, options.report)):
        _tell(f"{file} is written")
    return _status(test)


def _status(test: Backtest) -> int:
    failed = test.forecasts.failed.total()
    if failed:
        _tell(f"{failed} contexts have no forecast: {test.forecasts.error or dict(test.forecasts.failed)}")
    return CRASH if failed and not test.forecasts.forecast else 0


def _span(recording: Recording) -> tuple[int, int]:
    there = [s.timestamp_ms for s in recording.series if len(s.timestamp_ms)]
    return min((int(t[0]) for t in there), default=0), max((int(t[-1]) for t in there), default=0)


def _described(job: _Job, recording: Recording) -> str:
    first, last = _span(recording)
    texts = [
        f"{job.name}: {len(recording.series):,} series, {recording.samples:,} samples from "
        f"{report.clock(first)} to {report.clock(last)}, in steps of {job.pipeline.step_s:g} s"
    ]
    if recording.unsorted:
        texts.append(f"{recording.unsorted:,} series were not in the order of time, and were sorted")
    if recording.duplicates:
        texts.append(f"{recording.duplicates:,} samples had the time of an earlier one, and were left out")
    return "\n".join(texts)


def _figures(
    summary: Summary, test: Backtest, names: Sequence[str], outcome: Outcome | None, seconds: float
) -> dict[str, Any]:
    each = summary.series
    steps = sum(s.steps for s in each)
    out: dict[str, Any] = {
        "series": len(each),
        "steps": steps,
        "scored": sum(s.scored for s in each),
        "anomalous": sum(s.anomalous for s in each),
        "episodes": sum(s.episode_count for s in each),
        "forecasts": test.forecasts.forecast,
        "seconds": round(seconds, 3),
        "series_steps_per_s": round(steps / seconds),
        "worst": [
            {"series": names[i], "max_score": round(each[i].max_score, 4)}
            for i in summary.worst(_WORST)
            if each[i].max_score > 0
        ],
        "not_selected": test.counts["unselected_series"],
    }
    if outcome is not None:
        out["labels"] = report.judged(outcome)
    return out


def _text(figures: dict[str, Any], names: Sequence[str], summary: Summary) -> str:
    f = figures
    lines = [
        f"{f['scored']:,} of {f['steps']:,} steps have a score, {f['anomalous']:,} are anomalous, in "
        f"{f['episodes']:,} episodes.",
        f"{f['series_steps_per_s']:,} series-steps a second, in {f['seconds']:g} s.",
    ]
    if f["not_selected"]:
        lines.append(f"{f['not_selected']} series are not selected by the pipeline.")
    for i in summary.worst(_WORST):
        if summary.series[i].episodes:
            worst = max(summary.series[i].episodes, key=lambda e: (e.peak, e.start_ms))
            why = Reason(worst.reason).text
            lines.append(f"  {worst.peak:5.2f}  {report.clock(worst.start_ms)}  {names[i]}: {why}")
    if "labels" in f:
        lines.append(report.sentence(f["labels"]))
    return "\n".join(lines)


def _tell(text: str) -> None:
    print(text, file=sys.stderr)
