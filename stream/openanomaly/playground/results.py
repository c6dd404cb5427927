"""What came of a trial: figures, the series that are worst, alerts, and what is taken away."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import streamlit as st

from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.scoring.reason import Reason
from openanomaly.errors import OpenAnomalyError
from openanomaly.playground import charts, texts, trial
from openanomaly.playground.sources import Source
from openanomaly.playground.trial import Trial
from openanomaly.playground.workshop import Workshop
from openanomaly.reports.page import clock

log = logging.getLogger(__name__)

_ABREAST = 4
_KEPT = 8
"""Trials whose figures are kept to be compared."""
_LISTED, _DETAIL_STEPS, _AROUND = 500, 2000, 90
_WAITS_S = (0, 60, 120, 300, 600, 900, 1800, 3600)
_HOW = """\
### What would the scores be?

Choose data and a pipeline on the left, and try it. Every step is scored by the code that scores the stream:
what you see is what you would have been told.

- **Data**: a simulated fleet to begin with, a file of yours, or what your database has.
- **Pipeline**: what is watched and how. All options are in the YAML below the form, which you take away.
- **Result**: the series that are worst, why, and how often an alert would have fired. Change the pipeline and
  try again: trials stand beside each other.
"""


def attempt(shop: Workshop, source: Source, pipeline: Pipeline) -> None:
    """Make a trial, and keep it in the place of the one before."""
    outcome, counts = "left", shop.telemetry.playground.trials
    bar = st.progress(0.0, "waiting for another page" if shop.is_busy else "reading")

    def tell(done: int, of: int) -> None:
        bar.progress(done / of if of else 1.0, f"{done:,} of {of:,} samples")

    try:
        data = source(pipeline)
        with shop.engines(pipeline.model) as engines:
            found = trial.run(data, pipeline, engines, shop.limits.timeout_s, tell)
        st.session_state["trial"] = found
        _remember(found)
        outcome = "done"
    except OpenAnomalyError as exc:
        outcome = "failed"
        st.error(_said(exc))
    finally:
        counts.labels(outcome).inc()  # "left" where the page was changed or closed meanwhile
        bar.empty()


def show() -> None:
    """The last trial."""
    found: Trial | None = st.session_state.get("trial")
    if found is None:
        st.markdown(_HOW)
        return
    st.subheader(found.data.title, anchor=False)
    _lead(found)
    series, alerts, export = st.tabs(["Series", "Alerts", "Take away"])
    with series:
        _series(found)
    with alerts:
        level, wait_s, fired = _alerts(found)
    with export:
        _export(found, level, wait_s, fired)


def _said(exc: OpenAnomalyError) -> str:
    return "\n\n".join(f"`{line}`" for line in str(exc).splitlines())


# -- figures -----------------------------------------------------------------------------------


def _lead(found: Trial) -> None:
    first, last = found.summary.span_ms
    steps = sum(len(s.end_ms) for s in found.steps)
    st.caption(
        f"{len(found.names):,} series, {steps:,} steps of {found.pipeline.step_s:g} s from {clock(first)} to "
        f"{clock(last)}; {found.forecasts:,} forecasts in {found.seconds:.1f} s."
    )
    for warning in _warnings(found):
        st.warning(warning)
    figures = list(found.figures().items())
    for at in range(0, len(figures), _ABREAST):
        for column, (name, value) in zip(st.columns(_ABREAST), figures[at : at + _ABREAST], strict=False):
            column.metric(name, _shown(value))
    past = st.session_state["past"]
    if len(past) > 1:
        with st.expander(f"Beside the {len(past) - 1} before", expanded=True):
            st.dataframe(pd.DataFrame(past[::-1]), hide_index=True, width="stretch", key="past_table")


def _warnings(found: Trial) -> list[str]:
    out = list(found.data.warnings)
    if found.unselected:
        out.append(f"{found.unselected:,} series are not selected by the pipeline.")
    if found.failed:
        out.append(f"{sum(found.failed.values()):,} contexts have no forecast: {', '.join(found.failed)}.")
    if not any(s.scored for s in found.summary.series):
        out.append(
            f"There is no score: the first {found.pipeline.score.warmup} steps of a series are its warm-up. "
            "Try a longer time, or a shorter step."
        )
    return out


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}"
    return value if isinstance(value, str) else f"{value:,}"


def _remember(found: Trial) -> None:
    past: list[dict[str, Any]] = st.session_state.setdefault("past", [])
    past.append(
        {
            "tried": datetime.now(UTC).strftime("%H:%M:%SZ"),
            "data": found.data.title,
            **{name: _shown(value) for name, value in found.figures().items()},
            "pipeline": " ".join(texts.written(found.pipeline).split()),
        }
    )
    del past[:-_KEPT]


# -- series ------------------------------------------------------------------------------------


def _series(found: Trial) -> None:
    order = found.summary.worst(_LISTED)
    each = found.summary.series
    table = pd.DataFrame(
        {
            "series": [found.names[i] for i in order],
            "highest score": [round(each[i].max_score, 2) for i in order],
            "episodes": [each[i].episode_count for i in order],
            "anomalous steps": [each[i].anomalous for i in order],
            "scored steps": [each[i].scored for i in order],
        }
    )
    if found.summary.known is not None:
        table["known events"] = [len(found.summary.known[i]) for i in order]
    chosen = st.dataframe(
        table,
        hide_index=True,
        width="stretch",
        height=min(38 + 35 * len(order), 250),
        on_select="rerun",
        selection_mode="single-row-required",
        key=f"series_{id(found)}",
    )
    if len(found.names) > len(order):
        st.caption(f"The worst {len(order):,} of {len(found.names):,} series.")
    rows = chosen["selection"]["rows"]
    _one(found, order[rows[0] if rows else 0])


def _one(found: Trial, i: int) -> None:
    summary, steps = found.summary, found.steps[i]
    one = summary.series[i]
    known = summary.known[i] if summary.known is not None else ()
    st.markdown(f"**`{found.names[i]}`**")
    if not len(steps.end_ms):
        st.caption("There is no step of it.")
        return
    key = f"{id(found)}_{i}"
    alert = found.pipeline.score.alert_score
    frame = charts.of_curve(summary.curve(i))
    values, scores = charts.drawn(frame, alert, one.episodes, known, with_brush=True)
    event = st.altair_chart(
        values, width="stretch", on_select="rerun", selection_mode=[charts.BRUSH], key=f"values_{key}"
    )
    st.altair_chart(scores, width="stretch", key=f"scores_{key}")
    st.caption(
        "Line: value. Band: range of normal. Dashed: forecast. Red: anomalous. Yellow: known events. Below: "
        "scores. Draw a span over the chart, or choose an episode, to see it step by step. Times are UTC."
    )
    episodes = sorted(one.episodes, key=lambda e: -e.peak)
    picked = None
    if episodes:
        table = pd.DataFrame(
            {
                "from": [clock(e.start_ms) for e in episodes],
                "to": [clock(e.end_ms) for e in episodes],
                "peak": [round(e.peak, 2) for e in episodes],
                "why": [Reason(e.reason).text for e in episodes],
            }
        )
        rows = st.dataframe(
            table,
            hide_index=True,
            width="stretch",
            on_select="rerun",
            selection_mode="single-row",
            key=f"episodes_{key}",
        )["selection"]["rows"]
        picked = episodes[rows[0] if rows else 0]
    span = _brushed(event)
    if span is None and picked is not None:
        around = _AROUND * summary.step_ms
        span = (picked.start_ms - around, picked.end_ms + around)
    if span is None:
        return
    near = steps.between(*span)
    if not len(near.end_ms):
        return
    if len(near.end_ms) > _DETAIL_STEPS:
        st.caption(f"{len(near.end_ms):,} steps are too many to be drawn one by one; draw a shorter span.")
        return
    values, scores = charts.drawn(charts.of_steps(near, found.data.by_end), alert, one.episodes, known)
    st.altair_chart(values, width="stretch", key=f"near_values_{key}")
    st.altair_chart(scores, width="stretch", key=f"near_scores_{key}")


def _brushed(event: Any) -> tuple[int, int] | None:
    """The span of time that was drawn, in ms."""
    found = event["selection"].get(charts.BRUSH) or {}
    for edges in found.values():
        if len(edges) == 2:
            return round(edges[0]), round(edges[1])
    return None


# -- alerts ------------------------------------------------------------------------------------


def _alerts(found: Trial) -> tuple[float, int, int]:
    st.caption(
        "A rule of alerts on these scores, and how often it would have fired: where a series is above the "
        "score for as long as the rule waits. Alerts on groups are rarer, and usually what pages people."
    )
    left, right = st.columns(2)
    level = left.slider("Score above", 0.5, 9.5, float(found.pipeline.score.alert_score), 0.1)
    wait_s = right.select_slider("for", _WAITS_S, 300, format_func=texts.duration)
    fired = found.alerts(level, wait_s)
    total = sum(map(len, fired))
    a, b, c = st.columns(3)
    a.metric("alerts", f"{total:,}")
    b.metric("alerts a day", _shown(total / found.days if found.days else None))
    c.metric("series with alerts", f"{sum(len(f) > 0 for f in fired):,}")
    rows = sorted(
        (int(f.fired_ms[k]), int(f.until_ms[k]), i) for i, f in enumerate(fired) for k in range(len(f))
    )
    if found.pipeline.step_ms > 300_000 and wait_s:
        st.warning(
            "Databases show a sample for 5 minutes. With a step longer than that an alert that waits cannot "
            "fire, unless its rule says `last_over_time`."
        )
    if rows:
        st.dataframe(
            pd.DataFrame(
                {
                    "fired": [clock(at) for at, _, _ in rows[:_LISTED]],
                    "until": [clock(until) for _, until, _ in rows[:_LISTED]],
                    "series": [found.names[i] for _, _, i in rows[:_LISTED]],
                }
            ),
            hide_index=True,
            width="stretch",
        )
    return level, wait_s, total


# -- what is taken away ------------------------------------------------------------------------


def _export(found: Trial, level: float, wait_s: int, fired: int) -> None:
    pipeline = found.pipeline
    definition = texts.settings(texts.written(pipeline))
    st.markdown("**The pipeline**, for `openanomaly.yaml` or a store")
    st.code(definition, "yaml")
    _download(definition, "openanomaly.yaml", "application/yaml")
    rules = texts.rules(
        pipeline,
        level,
        wait_s,
        title=found.data.title,
        days=found.days,
        series=len(found.names),
        fired=fired,
    )
    st.markdown("**Alerts**, for Prometheus and vmalert")
    st.code(rules, "yaml")
    _download(rules, "alerts.yaml", "application/yaml")
    st.markdown("**The trial**")
    _download(found.report, "report.html", "text/html")
    _download(found.csv, "scores.csv", "text/csv")


def _download(content: str | Callable[[], str | bytes], name: str, media: str) -> None:
    """A file; what is a call is made when somebody wants it."""
    st.download_button(name, content, name, media, on_click="ignore")
