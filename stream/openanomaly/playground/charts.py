"""Series and scores as Vega-Lite: values and the range of normal above, scores below, on one axis of time."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from openanomaly.core.recording import Span
from openanomaly.core.scoring.reason import Reason
from openanomaly.core.services.backtest_summary import Curve, Episode
from openanomaly.playground.trial import Steps

VALUE, BAND, BAD, KNOWN, BAR = "#2a68b3", "#6d9bd3", "#c2331e", "#e0a020", "#b7bfcb"
PLOT, STRIP = 240, 110
BRUSH = "range"
"""Name of the selection of a span of time."""
_CAP = 10.0
_GAP = 1.75
"""Times the usual distance of two points: behind more than that something is missing."""
_MARGIN = 46
"""Both charts of a series begin at the same place."""
_CLOCK = "utcFormat(datum.value, utchours(datum.value) + utcminutes(datum.value) ? '%H:%M' : '%b %d')"
_UTC = alt.Scale(type="utc")
_TIME_AXIS = alt.Axis(title=None, labelExpr=_CLOCK, labelOverlap="greedy", grid=False)


def of_curve(curve: Curve, point_ms: int) -> pd.DataFrame:
    """Points of a whole recording, `point_ms` apart where nothing is missing."""
    low, high = curve.low.astype(np.float64), curve.high.astype(np.float64)
    middle = (low + high) / 2
    # What is odd about a point is the value of it that is further from what was expected.
    expected = np.where(np.isfinite(curve.expected), curve.expected, middle)
    peak = np.where(np.abs(high - expected) >= np.abs(low - expected), high, low)
    columns = {
        "low": low,
        "high": high,
        "value": middle,
        "peak": peak,
        "expected": curve.expected,
        "lower": curve.lower,
        "upper": curve.upper,
        "score": curve.score,
    }
    return _frame(curve.time_ms, columns, point_ms)


def of_steps(steps: Steps, by_end: bool, step_ms: int) -> pd.DataFrame:
    """Steps one by one."""
    columns: dict[str, NDArray[Any]] = {
        "low": steps.value,
        "high": steps.value,
        "value": steps.value,
        "peak": steps.value,
        "expected": steps.expected,
        "lower": steps.lower,
        "upper": steps.upper,
        "score": steps.score,
        "reason": np.array([Reason(reason).text for reason in steps.reason.tolist()], dtype=object),
    }
    return _frame(steps.end_ms if by_end else steps.sample_ms, columns, step_ms)


def _frame(time_ms: NDArray[np.int64], columns: dict[str, NDArray[Any]], point_ms: int) -> pd.DataFrame:
    """With a row of nothing in each gap, so that no line is drawn through it."""
    gap = np.flatnonzero(np.diff(time_ms) > _GAP * point_ms)
    frame = pd.DataFrame({"time": time_ms, **columns})
    if gap.size:
        nothing = pd.DataFrame({"time": time_ms[gap] + point_ms})
        frame = pd.concat([frame, nothing], ignore_index=True).sort_values("time", kind="stable")
    frame["time"] = pd.to_datetime(frame["time"], unit="ms", utc=True)
    return frame


def drawn(
    frame: pd.DataFrame,
    alert_score: float,
    episodes: Sequence[Episode],
    known: Sequence[Span],
    *,
    with_brush: bool = False,
) -> tuple[alt.LayerChart, alt.LayerChart]:
    """One series: its values, and its scores.

    Args:
        frame: of `of_curve` or `of_steps`.
        known: events that somebody labelled.
        with_brush: a span of time can be chosen.
    """
    first, last = frame["time"].min(), frame["time"].max()
    time = alt.X("time:T", title=None, scale=_UTC, axis=_TIME_AXIS)
    base = alt.Chart(frame).encode(x=time)
    value = alt.Y(
        "lower:Q",
        scale=alt.Scale(zero=False, domain=_domain(frame), clamp=True),
        axis=alt.Axis(title=None, format="~s", minExtent=_MARGIN, maxExtent=_MARGIN),
    )
    is_bad = alt.datum.score > alert_score
    bad = base.mark_circle(color=BAD, size=36, clip=True).encode(y="peak:Q", tooltip=_tooltip(frame))
    bad = bad.transform_filter(is_bad)
    values: Any = alt.layer(
        *_spans([(e.start_ms, e.end_ms) for e in episodes], first, last, BAD, 0.10),
        *_spans(known, first, last, KNOWN, 0.22),
        base.mark_area(color=BAND, opacity=0.25, clip=True).encode(y=value, y2="upper:Q"),
        base.mark_line(color=BAND, strokeDash=[4, 3], strokeWidth=1, clip=True).encode(y="expected:Q"),
        base.mark_area(color=VALUE, opacity=0.25, clip=True).encode(y="low:Q", y2="high:Q"),
        base.mark_line(color=VALUE, strokeWidth=1.5, clip=True).encode(y="value:Q", tooltip=_tooltip(frame)),
        *([bad] if (frame["score"] > alert_score).any() else []),  # Vega complains of marks without data
    ).properties(height=PLOT)
    if with_brush:
        values = values.add_params(alt.selection_interval(name=BRUSH, encodings=["x"]))
    score = alt.Y(
        "shown:Q",
        scale=alt.Scale(domain=[0, _CAP], type="sqrt"),
        axis=alt.Axis(title=None, values=[0, 1, 5, 10], minExtent=_MARGIN, maxExtent=_MARGIN),
    )
    scores: Any = alt.layer(
        base.mark_bar(width=2, clip=True)
        .transform_calculate(shown="datum.score || 0")  # in warm-up too: both axes are the same
        .encode(
            y=score,
            color=alt.condition(is_bad, alt.value(BAD), alt.value(BAR)),
            tooltip=_tooltip(frame),
        ),
        alt.Chart(pd.DataFrame({"alert": [alert_score]}))
        .mark_rule(color=BAD, strokeDash=[3, 3])
        .encode(y="alert:Q"),
    ).properties(height=STRIP)
    return values, scores


def _tooltip(frame: pd.DataFrame) -> list[alt.Tooltip]:
    is_whole = "reason" not in frame
    numbers = (*(("low", "high") if is_whole else ("value",)), "expected", "lower", "upper", "score")
    return [
        alt.Tooltip("time:T", title="time", format="%Y-%m-%d %H:%M:%S", formatType="utc"),
        *(alt.Tooltip(f"{name}:Q", format=".5~g") for name in numbers),
        *([] if is_whole else [alt.Tooltip("reason:N")]),
    ]


def _domain(frame: pd.DataFrame) -> list[float]:
    """Of values: the range of normal may reach beyond them, but not so far that they are a line."""
    low, high = float(np.nanmin(frame["low"])), float(np.nanmax(frame["high"]))
    span = (high - low) or abs(high) or 1.0
    lower = np.nanmin([low, *frame["lower"].dropna().tail(100_000)])
    upper = np.nanmax([high, *frame["upper"].dropna().tail(100_000)])
    return [max(float(lower), low - 1.5 * span), min(float(upper), high + 1.5 * span)]


def _spans(
    spans: Sequence[Span],
    first: pd.Timestamp,
    last: pd.Timestamp,
    color: str,
    opacity: float,
) -> list[alt.Chart]:
    shown = [
        (max(pd.Timestamp(a, unit="ms", tz="UTC"), first), min(pd.Timestamp(b, unit="ms", tz="UTC"), last))
        for a, b in spans
    ]
    there = [(a, b) for a, b in shown if a <= b]
    if not there:
        return []
    frame = pd.DataFrame(there, columns=["from", "to"])
    chart = alt.Chart(frame).mark_rect(color=color, opacity=opacity, stroke=color, strokeOpacity=opacity * 2)
    return [chart.encode(x=alt.X("from:T", scale=_UTC, axis=_TIME_AXIS), x2="to:T")]
