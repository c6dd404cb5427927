"""What is chosen beside the page: data, and the pipeline to begin with."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

import streamlit as st

from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.errors import ConfigError
from openanomaly.playground import data, form
from openanomaly.playground.data import Data
from openanomaly.playground.workshop import Workshop

EXAMPLE, FILE, DATABASE = "Example", "File", "Database"
Source = Callable[[Pipeline], Data]
"""Reads the data for a pipeline."""
_SPANS = {"6 hours": 6, "1 day": 24, "3 days": 72, "7 days": 168, "14 days": 336, "30 days": 720}
_OWN_SPAN = "from … to"


def begin(shop: Workshop) -> None:
    """What a new page has."""
    if not form.has_begun():
        form.start(_example_pipeline())


def choose(shop: Workshop) -> Source | None:
    """The data to be tried on; None while there is none."""
    kinds = [EXAMPLE, FILE, DATABASE]
    kind = st.segmented_control("From", kinds, default=EXAMPLE, required=True, label_visibility="collapsed")
    if kind == FILE:
        return _file(shop)
    if kind == DATABASE:
        return _database(shop)
    st.caption(
        "A week of a simulated fleet, and then faults in it. They are known, so you see which of them a "
        "pipeline finds."
    )
    return lambda pipeline: data.example()


def choose_pipeline(shop: Workshop) -> None:
    """Begin with one of the pipelines that are defined."""
    try:
        known = {p.name: p for p in shop.pipelines()}
    except ConfigError as exc:
        st.warning(f"`{exc}`")
        known = {}

    def begin_with() -> None:
        if (name := st.session_state["begin"]) is not None:
            form.start(known[name])

    st.selectbox(
        "Begin with",
        list(known),
        index=None,
        key="begin",
        placeholder="a pipeline that is defined",
        on_change=begin_with,
        help="Pipelines of the settings, their presets and their store.",
    )


def _example_pipeline() -> Pipeline:
    return Pipeline(name="playground", step_s=data.EXAMPLE_STEP_S)


def _file(shop: Workshop) -> Source | None:
    st.file_uploader(
        "CSV or Parquet",
        ["csv", "tsv", "parquet"],
        key="file",
        help="A time and a column for each series; or a time, labels and a column `value`.",
        on_change=_read_file,
        args=(shop,),
    )
    st.file_uploader(
        "Known events (optional)",
        ["csv"],
        key="events",
        help="A CSV of `timestamp`, or of `start` and `end`; with `series` where not all have them.",
        on_change=_read_file,
        args=(shop,),
    )
    found = st.session_state.get("data")
    if isinstance(found, str):
        st.error(f"`{found}`")
        return None
    if found is None:
        return None
    known = found.recording.events
    events = "" if known is None else f", {sum(map(len, known)):,} known events"
    st.caption(f"{len(found.recording.series):,} series, {found.recording.samples:,} samples{events}")
    for warning in found.warnings:
        st.caption(warning)
    return lambda pipeline: found


def _read_file(shop: Workshop) -> None:
    """Files were chosen or taken away; what is wrong with them is kept in their place."""
    file, known = st.session_state["file"], st.session_state["events"]
    found: Data | str | None = None
    if file is not None:
        try:
            found = data.of_file(
                file.name, file.getvalue(), None if known is None else known.getvalue(), shop.limits
            )
            if found.step_ms is not None:
                form.put(("step_s",), found.step_ms / 1000)
        except ConfigError as exc:
            found = str(exc)
    st.session_state["data"] = found


def _database(shop: Workshop) -> Source | None:
    if shop.client is None:
        st.info("`pull.url` is not set: there is no database to ask.")
        return None
    st.caption(f"{shop.client.shown}, by the `query` or the `selector` of the pipeline below.")
    st.text_input(
        "Query or selector",
        key="asked",
        placeholder='node_load1{job="node"}',
        help="PromQL. A selector reads stored samples, as the stream would have got them; another query is "
        "asked at every step, as pull mode does. It is written into the pipeline.",
        on_change=_ask,
    )
    span = st.selectbox("Time", [*_SPANS, _OWN_SPAN], index=2)
    now = datetime.now(UTC).replace(microsecond=0)
    if span == _OWN_SPAN:
        left, right = st.columns(2)
        first = left.datetime_input("From (UTC)", now.replace(tzinfo=None) - timedelta(days=3))
        last = right.datetime_input("To (UTC)", now.replace(tzinfo=None))
        begin_ms, end_ms = _ms(first), _ms(last)
        if begin_ms >= end_ms:
            st.warning("It ends before it begins.")
            return None
    else:
        begin_ms = _ms(now - timedelta(hours=_SPANS[span]))
        end_ms = _ms(now)
    return partial(_asked, shop, begin_ms, end_ms)


def _asked(shop: Workshop, begin_ms: int, end_ms: int, pipeline: Pipeline) -> Data:
    if shop.client is None:
        raise ConfigError("pull.url is not set: there is no database to ask")
    return data.of_database(shop.client, pipeline, begin_ms, end_ms, shop.limits)


def _ask() -> None:
    form.ask(st.session_state["asked"].strip())


def _ms(moment: datetime) -> int:
    known = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return round(known.timestamp() * 1000)
