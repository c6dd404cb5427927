"""A trial: made, its figures shown, and those of the trials before it."""

import logging
import time
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import streamlit as st

from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.errors import OpenAnomalyError, TrialError
from openanomaly.playground import alerts_tab, export_tab, series_tab, texts, trial
from openanomaly.playground.figures import shown_figure
from openanomaly.playground.session import page
from openanomaly.playground.sources import Source
from openanomaly.playground.trial import Trial
from openanomaly.playground.workshop import Workshop
from openanomaly.reports.page import clock

log = logging.getLogger(__name__)

_ABREAST = 4
_KEPT = 8
"""Trials whose figures are kept to be compared."""
_SAID, _PAST = "said", "past"
"""Keys of the state of a page: what became of the last trial, and figures of those before."""
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
    st.session_state[_SAID] = "The last trial was left: something was done on the page meanwhile."
    bar = st.progress(0.0, "waiting for another page" if shop.is_busy else "reading")
    until_s = time.monotonic() + shop.limits.timeout_s

    def look() -> None:
        bar.progress(0.0, "reading")
        if time.monotonic() > until_s:
            raise TrialError(f"it was not read within playground.timeout_s={shop.limits.timeout_s:g}")

    def tell(done: int, of: int) -> None:
        bar.progress(done / of if of else 1.0, f"{done:,} of {texts.counted(of, 'sample')}")

    try:
        data = source(pipeline, look)
        bar.progress(0.0, "waiting for another page" if shop.is_busy else "scoring")
        with shop.engines(pipeline.model) as engines:
            found = trial.run(data, pipeline, engines, shop.limits.timeout_s, tell)
        shop.keep(page(), "trial", found)
        _remember(found)
        st.session_state[_SAID] = None
        outcome = "done"
    except OpenAnomalyError as exc:
        outcome = "failed"
        st.session_state[_SAID] = f"The last trial failed.\n\n{texts.lines(str(exc))}"
    except Exception:
        outcome = "failed"
        st.session_state[_SAID] = "The last trial failed by a fault of ours; the log has it."
        log.exception("a trial failed")
    finally:
        counts.labels(outcome).inc()  # "left" where the page was changed or closed meanwhile
        bar.empty()


def show(shop: Workshop, pipeline: Pipeline) -> None:
    """The last trial, and whether it is one of the pipeline that the form has now."""
    if said := st.session_state.get(_SAID):
        st.error(said)
    found: Trial | None = shop.kept(page(), "trial")
    if found is None:
        if _PAST in st.session_state and not said:
            st.info("The last trial was put away, as many pages are open. Try again.")
        st.markdown(_HOW)
        return
    st.subheader(texts.plain(found.data.title), anchor=False)
    _lead(found, pipeline)
    series, alerts, export = st.tabs(["Series", "Alerts", "Take away"])
    with series:
        series_tab.show(found)
    with alerts:
        rule = alerts_tab.show(found)
    with export:
        export_tab.show(shop, found, rule)


# -- figures -----------------------------------------------------------------------------------


def _lead(found: Trial, pipeline: Pipeline) -> None:
    first, last = found.summary.span_ms
    steps = sum(len(s.end_ms) for s in found.steps)
    st.caption(
        f"Pipeline {found.pipeline.name}: {len(found.names):,} series, {steps:,} steps of "
        f"{found.pipeline.step_s:g} s from {clock(first)} to {clock(last)}; {found.forecasts:,} forecasts in "
        f"{found.seconds:.1f} s."
    )
    if pipeline != found.pipeline:
        st.info("The pipeline was changed since: this is the trial before that.")
    for warning in _warnings(found):
        st.warning(warning)
    figures = list(found.figures().items())
    for at in range(0, len(figures), _ABREAST):
        for column, (name, value) in zip(st.columns(_ABREAST), figures[at : at + _ABREAST], strict=False):
            column.metric(name, shown_figure(value))
    past = st.session_state[_PAST]
    if len(past) > 1:
        with st.expander(f"Beside the {len(past) - 1} before", expanded=True):
            st.dataframe(pd.DataFrame(past[::-1]), hide_index=True, width="stretch", key="past_table")


def _warnings(found: Trial) -> list[str]:
    data, pipeline = found.data, found.pipeline
    out = [texts.plain(warning) for warning in data.warnings]
    if pipeline.query is not None and not data.by_end:
        out.append("Nobody evaluated the query: the series of a file are taken for its answers.")
    if data.step_ms is not None and data.step_ms != pipeline.step_ms:
        out.append(
            f"Samples are {data.step_ms / 1000:g} s apart, and steps {pipeline.step_s:g} s. "
            f"Choose {texts.duration(round(data.step_ms / 1000))} to score sample by sample."
        )
    if found.unselected:
        out.append(f"{found.unselected:,} series are not selected by the pipeline.")
    if found.failed:
        out.append(f"{sum(found.failed.values()):,} contexts have no forecast: {', '.join(found.failed)}.")
    if found.unselected < len(found.names) and not any(s.scored for s in found.summary.series):
        out.append(
            f"There is no score: the first {pipeline.score.warmup} steps of a series are its warm-up. "
            "Try a longer time, or a shorter step."
        )
    return out


def _remember(found: Trial) -> None:
    past: list[dict[str, Any]] = st.session_state.setdefault(_PAST, [])
    past.append(
        {
            "tried": datetime.now(UTC).strftime("%H:%M:%SZ"),
            "data": found.data.title,
            **{name: shown_figure(value) for name, value in found.figures().items()},
            "pipeline": " ".join(texts.written(found.pipeline).split()),
        }
    )
    del past[:-_KEPT]
