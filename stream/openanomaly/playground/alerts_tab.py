"""How often a rule of alerts on the scores of a trial would have fired."""

from dataclasses import dataclass

import pandas as pd
import streamlit as st

from openanomaly.playground import texts
from openanomaly.playground.figures import shown_figure
from openanomaly.playground.trial import Trial
from openanomaly.reports.page import clock

_LISTED = 500
_WAITS_S = (0, 60, 120, 300, 600, 900, 1800, 3600)


@dataclass(frozen=True, slots=True)
class Rule:
    """`expr: anomaly_score > level`, `for: wait_s`, and how often it fired."""

    level: float
    wait_s: int
    fired: int


def show(found: Trial) -> Rule:
    """Choose a rule, and see when it would have fired."""
    window = texts.window_s(found.pipeline)
    back = f" The rule looks back {texts.duration(window)}, as steps are long." if window else ""
    st.caption(
        "A rule of alerts on these scores, and how often it would have fired: where a series is above the "
        "score for as long as the rule waits. Alerts on groups are rarer, and usually what pages people."
        + back
    )
    left, right = st.columns(2)
    level = left.slider("Score above", 0.5, 9.5, float(found.pipeline.score.alert_score), 0.1)
    wait_s = right.select_slider("for", _WAITS_S, 300, format_func=texts.duration)
    fired = found.alerts(level, wait_s)
    total = sum(map(len, fired))
    a, b, c = st.columns(3)
    a.metric("alerts", f"{total:,}")
    b.metric("alerts a day", shown_figure(total / found.days if found.days else None))
    c.metric("series with alerts", f"{sum(len(f) > 0 for f in fired):,}")
    rows = sorted(
        (int(f.fired_ms[k]), int(f.until_ms[k]), i) for i, f in enumerate(fired) for k in range(len(f))
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
    return Rule(level, wait_s, total)
