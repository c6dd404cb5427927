"""The report of a backtest: one HTML file that needs nothing else, and no script."""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.scoring.events import Outcome
from openanomaly.core.scoring.reason import Reason
from openanomaly.core.services.backtest_summary import Episode, SeriesSummary, Summary
from openanomaly.errors import ConfigError
from openanomaly.reports.chart import chart, short

DRAWN = 25
"""Series that are drawn, the worst first."""
_LISTED = 200
_EPISODES = 12


@dataclass(frozen=True, slots=True)
class Facts:
    """What a report tells."""

    title: str
    pipeline: Pipeline
    names: Sequence[str]
    summary: Summary
    outcome: Outcome | None
    seconds: float


def clock(timestamp_ms: int) -> str:
    """A moment, for people."""
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def judged(outcome: Outcome) -> dict[str, Any]:
    """What labels say, as figures; None for what nothing is known of."""

    def number(x: float) -> float | None:
        return round(x, 4) if math.isfinite(x) else None

    return {
        "events": outcome.events,
        "found": outcome.found,
        "recall": number(outcome.recall),
        "precision": number(outcome.precision),
        "f1": number(outcome.f1),
        "false_alarms": outcome.false,
        "false_alarms_per_day": number(outcome.false_a_day),
        "median_found_after_steps": number(outcome.median_found_after),
        "found_after_steps": list(outcome.found_after),
    }


def sentence(figures: dict[str, Any]) -> str:
    """The same in words."""

    def shown(name: str) -> str:
        return "-" if figures[name] is None else f"{figures[name]:.3g}"

    return (
        f"{figures['found']} of {figures['events']} events found (recall {shown('recall')}), half of "
        f"them within {shown('median_found_after_steps')} steps; precision {shown('precision')}, "
        f"F1 {shown('f1')}, {shown('false_alarms_per_day')} false alarms a day and series."
    )


def check(path: Path) -> None:
    """Whether a report can be written, asked before an hour's work.

    Raises:
        ConfigError: it cannot.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        part.touch()
        part.unlink()
    except OSError as exc:
        raise ConfigError(f"cannot write {path}: {exc.strerror or exc}") from exc


def write(path: Path, facts: Facts) -> None:
    """Write the report.

    Raises:
        ConfigError: the file cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text(facts), "utf-8")
        os.replace(part, path)
    except OSError as exc:
        raise ConfigError(f"cannot write {path}: {exc.strerror or exc}") from exc


def text(facts: Facts) -> str:
    """The report, as HTML."""
    return "".join(_page(facts))


def _page(facts: Facts) -> Iterator[str]:
    summary, title = facts.summary, escape(facts.title)
    css = files("openanomaly.reports").joinpath("page.css").read_text("utf-8")
    yield f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Backtest of {title}</title>\n'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    yield '<link rel="icon" href="data:,">\n'
    yield f"<style>\n{css}</style></head><body><main>\n"
    episodes = sum(s.episode_count for s in summary.series)
    yield f"<h1>{episodes:,} {'episode' if episodes == 1 else 'episodes'} in {title}</h1>\n"
    yield f'<p class="soft">{_lead(facts)}</p>\n<dl class="figures">\n'
    for name, value in _figures(facts):
        yield f"<div><dt>{name}</dt><dd>{value}</dd></div>\n"
    yield "</dl>\n"
    order = summary.worst(len(summary.series))
    for i in order[:DRAWN]:
        yield from _series(facts, i)
    if len(order) > 1:
        yield from _table(facts, order)
    yield f"<footer>{_options(facts.pipeline)}</footer>\n</main></body></html>\n"


def _lead(facts: Facts) -> str:
    summary = facts.summary
    first, last = summary.span_ms
    series = len(summary.series)
    return (
        f"{series:,} series, {sum(s.steps for s in summary.series):,} steps of {facts.pipeline.step_s:g} s, "
        f"from {clock(first)} to {clock(last)}. A score of 1 is the edge of what is normal for a series."
    )


def _figures(facts: Facts) -> Iterator[tuple[str, str]]:
    each = facts.summary.series
    steps, scored = sum(s.steps for s in each), sum(s.scored for s in each)
    days = scored * facts.pipeline.step_s / 86400
    yield "anomalous steps", f"{sum(s.anomalous for s in each):,}"
    yield "scored steps", f"{scored:,}"
    yield "episodes a day and series", f"{sum(s.episode_count for s in each) / days:.3g}" if days else "-"
    if steps and facts.seconds > 0:
        yield "series-steps a second", f"{steps / facts.seconds:,.0f}"
    if facts.outcome is not None:
        o = facts.outcome
        yield "events found", f"{o.found} of {o.events}"
        yield "precision", _number(o.precision)
        yield "F1", _number(o.f1)
        yield "false alarms a day and series", _number(o.false_a_day)
        yield "steps until half are found", _number(o.median_found_after)


def _number(x: float) -> str:
    return f"{x:.3g}" if math.isfinite(x) else "-"


def _series(facts: Facts, i: int) -> Iterator[str]:
    summary, one = facts.summary, facts.summary.series[i]
    spans = summary.known[i] if summary.known is not None else ()
    is_bad = one.max_score > summary.alert_score
    yield f'<section><h2>{escape(facts.names[i])}</h2><p class="{"bad" if is_bad else "soft"}">'
    yield f"{_said(one)}</p>\n"
    curve = summary.curve(i)
    if len(curve.time_ms):
        yield "<figure>" + chart(
            curve, summary.point_ms, one.episodes, spans, summary.alert_score, summary.span_ms
        )
        point = _span(summary.point_ms)
        yield f"<figcaption>All of it, {point} a point: lowest and highest value</figcaption>"
        yield "</figure>\n"
    if one.closeup is not None and len(one.closeup.time_ms) > 1 and summary.point_ms > summary.step_ms:
        near = one.closeup
        yield "<figure>" + chart(
            near,
            summary.step_ms,
            one.episodes,
            spans,
            summary.alert_score,
            (int(near.time_ms[0]), int(near.time_ms[-1])),
        )
        yield "<figcaption>Around its highest score, step by step</figcaption></figure>\n"
    yield from _episodes(one.episodes)
    yield "</section>\n"


def _said(one: SeriesSummary) -> str:
    if not one.scored:
        return f"No score: {one.steps:,} steps are all warm-up"
    text = f"Highest score {one.max_score:.2f}, {one.anomalous:,} anomalous of {one.scored:,} scored steps"
    if one.unforecast:
        text += f", {one.unforecast:,} without a forecast"
    if one.outcome is not None:
        o = one.outcome
        text += f"; {o.found} of {o.events} events found, {o.false} false alarms"
    return text


def _episodes(episodes: list[Episode]) -> Iterator[str]:
    if not episodes:
        return
    shown = sorted(sorted(episodes, key=lambda e: -e.peak)[:_EPISODES], key=lambda e: e.start_ms)
    yield '<div class="wide"><table><thead><tr><th>from</th><th>to</th><th class="n">peak</th>'
    yield "<th>why</th></tr></thead><tbody>\n"
    for e in shown:
        yield f"<tr><td>{clock(e.start_ms)}</td><td>{clock(e.end_ms)}</td>"
        yield f'<td class="n">{e.peak:.2f}</td><td>{escape(Reason(e.reason).text)}</td></tr>\n'
    yield "</tbody></table></div>\n"
    if len(episodes) > len(shown):
        yield f'<p class="soft">The highest {len(shown)} of {len(episodes):,} episodes.</p>\n'


def _table(facts: Facts, order: list[int]) -> Iterator[str]:
    yield '<section><h2>Series</h2><div class="wide"><table><thead><tr><th>series</th>'
    yield '<th class="n">highest score</th><th class="n">episodes</th><th class="n">anomalous steps</th>'
    yield '<th class="n">steps</th></tr></thead><tbody>\n'
    for i in order[:_LISTED]:
        one = facts.summary.series[i]
        yield f'<tr><td>{escape(facts.names[i])}</td><td class="n">{one.max_score:.2f}</td>'
        yield f'<td class="n">{one.episode_count:,}</td><td class="n">{one.anomalous:,}</td>'
        yield f'<td class="n">{one.steps:,}</td></tr>\n'
    yield "</tbody></table></div>\n"
    if len(order) > _LISTED:
        yield f'<p class="soft">The worst {_LISTED} of {len(order):,} series.</p>\n'
    yield "</section>\n"


def _options(pipeline: Pipeline) -> str:
    given = pipeline.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
    return "OpenAnomaly backtest; pipeline " + escape(str(given))


def _span(ms: int) -> str:
    seconds = ms / 1000
    if seconds < 120:
        return f"{short(seconds)} s"
    return f"{short(seconds / 60)} min" if seconds < 7200 else f"{short(seconds / 3600)} h"
