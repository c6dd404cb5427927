"""The series of a trial: a list, and one of them drawn."""

from typing import Any

import pandas as pd
import streamlit as st

from openanomaly.core.scoring.reason import Reason
from openanomaly.playground import charts, texts
from openanomaly.playground.trial import Trial
from openanomaly.reports.page import clock

_LISTED, _DETAIL_STEPS, _AROUND = 500, 2000, 90


def show(found: Trial) -> None:
    """Series, the worst first, and the one that is chosen."""
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
        outcomes = [each[i].outcome for i in order]
        table["events found"] = [f"{o.found} of {o.events}" if o is not None else "" for o in outcomes]
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
    st.markdown(f"**{texts.plain(found.names[i])}**")
    if not len(steps.end_ms):
        st.caption("There is no step of it.")
        return
    key = f"{id(found)}_{i}"
    alert = found.pipeline.score.alert_score
    frame = charts.of_curve(summary.curve(i), summary.point_ms)
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
        chosen = tuple(rows)
    else:
        chosen = ()
    span = _newest(key, _brushed(event), chosen)
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
    values, scores = charts.drawn(
        charts.of_steps(near, found.data.by_end, summary.step_ms), alert, one.episodes, known
    )
    st.altair_chart(values, width="stretch", key=f"near_values_{key}")
    st.altair_chart(scores, width="stretch", key=f"near_scores_{key}")


def _newest(key: str, span: tuple[int, int] | None, chosen: tuple[int, ...]) -> tuple[int, int] | None:
    """The span that was drawn, unless an episode was chosen after it."""
    before = st.session_state.get(f"seen_{key}", (None, ()))
    is_drawn, is_chosen = span != before[0], chosen != before[1]
    wins = st.session_state.get(f"wins_{key}", "span")
    if is_drawn or is_chosen:
        wins = "span" if is_drawn else "episode"
    st.session_state[f"seen_{key}"], st.session_state[f"wins_{key}"] = (span, chosen), wins
    return span if wins == "span" or not chosen else None


def _brushed(event: Any) -> tuple[int, int] | None:
    """The span of time that was drawn, in ms."""
    found = event["selection"].get(charts.BRUSH) or {}
    for edges in found.values():
        if len(edges) == 2:
            return round(edges[0]), round(edges[1])
    return None
