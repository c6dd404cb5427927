"""What is taken away from a trial."""

from collections.abc import Callable

import streamlit as st

from openanomaly.playground import texts
from openanomaly.playground.alerts_tab import Rule
from openanomaly.playground.trial import Trial
from openanomaly.playground.workshop import Workshop


def show(shop: Workshop, found: Trial, rule: Rule) -> None:
    """The pipeline, a rule of alerts, and the trial itself."""
    pipeline = found.pipeline
    definition = texts.settings(texts.written(pipeline))
    st.markdown("**The pipeline**, for `openanomaly.yaml` or a store")
    st.code(definition, "yaml")
    _download(definition, "openanomaly.yaml", "application/yaml")
    rules = texts.rules(
        pipeline,
        rule.level,
        rule.wait_s,
        title=found.data.title,
        days=found.days,
        series=len(found.names),
        fired=rule.fired,
    )
    st.markdown("**Alerts**, for Prometheus and vmalert")
    st.code(rules, "yaml")
    _download(rules, "alerts.yaml", "application/yaml")
    st.markdown("**The trial**")
    _download(found.report, "report.html", "text/html")

    def scores() -> bytes:
        with shop.bench():  # it takes memory
            return found.csv()

    _download(scores, "scores.csv", "text/csv")


def _download(content: str | Callable[[], str | bytes], name: str, media: str) -> None:
    """A file; what is a call is made when somebody wants it."""
    st.download_button(name, content, name, media, on_click="ignore")
