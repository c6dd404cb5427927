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

VALUE, BAND, EXPECTED, BAD, KNOWN, BAR = "#2a68b3", "#6d9bd3", "#6d9bd3", "#c2331e", "#e0a020", "#b7bfcb"
PLOT, STRIP = 240, 90
BRUSH = "range"
"""Name of the selection of a span of time."""
_UTC = alt.Scale(type="utc")
_TIME = alt.X("time:T", title=None, scale=_UTC)
_CAP = 10.0


def of_curve(curve: Curve) -> pd.DataFrame:
    """Points of a whole recording."""
    return _frame(curve.time_ms, curve.low, curve.high, curve.expected, curve.lower, curve.upper, curve.score)


def of_steps(steps: Steps, by_end: bool) -> pd.DataFrame:
    """Steps one by one."""
    time_ms = steps.end_ms if by_end else steps.sample_ms
    frame = _frame(time_ms, steps.value, steps.value, steps.expected, steps.lower, steps.upper, steps.score)
    frame["reason"] = [Reason(reason).text for reason in steps.reason.tolist()]
    return frame


def _frame(
    time_ms: NDArray[np.int64],
    low: NDArray[Any],
    high: NDArray[Any],
    expected: NDArray[Any],
    lower: NDArray[Any],
    upper: NDArray[Any],
    score: NDArray[Any],
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "time": pd.to_datetime(time_ms, unit="ms", utc=True),
            "low": low,
            "high": high,
            "value": (low.astype(float) + high) / 2,
            "expected": expected,
            "lower": lower,
            "upper": upper,
            "score": score,
        }
    )


def drawn(
    frame: pd.DataFrame,
    alert_score: float,
    episodes: Sequence[Episode],
    known: Sequence[Span],
    *,
    with_brush: bool = False,
) -> alt.VConcatChart:
    """The drawing of one series.

    Args:
        frame: of `of_curve` or `of_steps`.
        known: events that somebody labelled.
        with_brush: a span of time can be chosen.
    """
    first, last = frame["time"].min(), frame["time"].max()
    marks = [
        *_spans([(e.start_ms, e.end_ms) for e in episodes], first, last, BAD, 0.10),
        *_spans(known, first, last, KNOWN, 0.22),
    ]
    base = alt.Chart(frame).encode(x=_TIME)
    values = alt.Y("value:Q", title=None, scale=alt.Scale(zero=False, domain=_domain(frame), clamp=True))
    whole = [
        alt.Tooltip("time:T", title="time", format="%Y-%m-%d %H:%M:%S", formatType="time"),
        *(
            alt.Tooltip(f"{name}:Q", format=".5~g")
            for name in ("value", "expected", "lower", "upper", "score")
        ),
        *([alt.Tooltip("reason:N")] if "reason" in frame else []),
    ]
    layers = [
        *marks,
        base.mark_area(color=BAND, opacity=0.25, clip=True)
        .encode(y=values, y2="upper:Q")
        .encode(
            y=alt.Y("lower:Q", title=None, scale=alt.Scale(zero=False, domain=_domain(frame), clamp=True))
        ),
        base.mark_line(color=EXPECTED, strokeDash=[4, 3], strokeWidth=1, clip=True).encode(y="expected:Q"),
        base.mark_area(color=VALUE, opacity=0.25, clip=True).encode(y="low:Q", y2="high:Q"),
        base.mark_line(color=VALUE, strokeWidth=1.5, clip=True).encode(y="value:Q"),
        base.mark_circle(color=BAD, size=36, clip=True)
        .encode(y="value:Q", tooltip=whole)
        .transform_filter(alt.datum.score > alert_score),
    ]
    top: Any = alt.layer(*layers).properties(height=PLOT, width="container")
    bottom: Any = alt.layer(
        base.mark_bar(width=2, clip=True).encode(
            y=alt.Y("score:Q", title="score", scale=alt.Scale(domain=[0, _CAP], type="sqrt")),
            color=alt.condition(alt.datum.score > alert_score, alt.value(BAD), alt.value(BAR)),
            tooltip=whole,
        ),
        alt.Chart(pd.DataFrame({"alert": [alert_score]}))
        .mark_rule(color=BAD, strokeDash=[3, 3])
        .encode(y="alert:Q"),
    ).properties(height=STRIP, width="container")
    if with_brush:
        top = top.add_params(alt.selection_interval(name=BRUSH, encodings=["x"]))
    whole_chart: alt.VConcatChart = alt.vconcat(top, bottom, spacing=4).resolve_scale(x="shared")
    return whole_chart


def _domain(frame: pd.DataFrame) -> list[float]:
    """Of values: the range of normal may reach beyond them, but not so far that they are a line."""
    low, high = float(np.nanmin(frame["low"])), float(np.nanmax(frame["high"]))
    span = (high - low) or abs(high) or 1.0
    lower = np.nanmin([low, *frame["lower"].dropna().tail(100_000)])
    upper = np.nanmax([high, *frame["upper"].dropna().tail(100_000)])
    return [max(float(lower), low - 1.5 * span), min(float(upper), high + 1.5 * span)]


def _spans(
    spans: Sequence[Span], first: pd.Timestamp, last: pd.Timestamp, color: str, opacity: float
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
    return [chart.encode(x=alt.X("from:T", scale=_UTC), x2="to:T")]
