"""What is chosen beside the page: data, and the pipeline to begin with."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import streamlit as st

from openanomaly.core.pipelines.pipeline import DEFAULT_SELECTOR, Pipeline
from openanomaly.errors import ConfigError
from openanomaly.playground import form, recorded, texts
from openanomaly.playground.recorded import Recorded
from openanomaly.playground.session import page
from openanomaly.playground.workshop import Workshop

EXAMPLE, FILE, DATABASE = "Example", "File", "Database"
Look = Callable[[], None]
Source = Callable[[Pipeline, Look], Recorded]
"""Reads what a pipeline is tried on; calls the other one now and then, and what that raises ends it."""
_SPANS = {"6 hours": 6, "1 day": 24, "3 days": 72, "7 days": 168, "14 days": 336, "30 days": 720}
_BEGUN, _READ = "begun", "read"
"""Keys of the state of a page: the pipeline that was begun with last, and the files that were read last."""
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
    return lambda pipeline, look: recorded.example()


def choose_pipeline(shop: Workshop) -> None:
    """Begin with one of the pipelines that are defined."""
    try:
        known = {p.name: p for p in shop.pipelines()}
    except ConfigError as exc:
        st.warning(texts.lines(str(exc)))
        known = {}

    name = st.selectbox(
        "Begin with",
        list(known),
        index=None,
        key="begin",
        placeholder="a pipeline that is defined",
        help="Pipelines of the settings, their presets and their store.",
    )
    if name != st.session_state.get(_BEGUN):
        st.session_state[_BEGUN] = name
        if name is not None:
            form.start(known[name])


def _example_pipeline() -> Pipeline:
    return Pipeline(name="playground", step_s=recorded.EXAMPLE_STEP_S)


def _file(shop: Workshop) -> Source | None:
    file = st.file_uploader(
        "CSV or Parquet",
        ["csv", "tsv", "parquet"],
        key="file",
        help="A time and a column for each series; or a time, labels and a column `value`.",
    )
    known = st.file_uploader(
        "Known events (optional)",
        ["csv"],
        key="events",
        help="A CSV of `timestamp`, or of `start` and `end`; with `series` where not all have them.",
    )
    chosen = (_id(file), _id(known))
    if chosen != st.session_state.get(_READ):
        _read(shop, file, known)
        st.session_state[_READ] = chosen
    found = shop.kept(page(), "upload")
    if isinstance(found, str):
        st.error(texts.lines(found))
        return None
    if found is None:
        return None
    known = found.recording.events
    events = "" if known is None else f", {texts.counted(sum(map(len, known)), 'known event')}"
    samples = texts.counted(found.recording.samples, "sample")
    st.caption(f"{len(found.recording.series):,} series, {samples}{events}")
    return lambda pipeline, look: found


def _id(file: Any) -> str | None:
    return None if file is None else file.file_id


def _read(shop: Workshop, file: Any, known: Any) -> None:
    """Files were chosen or taken away; what is wrong with them is kept in their place."""
    found: Recorded | str | None = None
    if file is not None:
        events = None if known is None else known.getvalue()
        try:
            found = recorded.of_file(file.name, file.getvalue(), events, shop.limits)
            if found.step_ms is not None:
                form.put(("step_s",), found.step_ms / 1000)
        except ConfigError as exc:
            found = str(exc)
    shop.keep(page(), "upload", found)


def _database(shop: Workshop) -> Source | None:
    if shop.client is None:
        st.info("`pull.url` is not set: there is no database to ask.")
        return None
    st.caption(f"{texts.plain(shop.client.shown)}, by the `query` or the `selector` of the pipeline below.")
    pipeline = form.shown()
    asked = pipeline.query or (pipeline.selector if pipeline.selector != DEFAULT_SELECTOR else "")
    typed = st.text_input(
        "Query or selector",
        asked,
        key=f"asked={asked}",
        placeholder='node_load1{job="node"}',
        help="PromQL. A selector reads stored samples, as the stream would have got them; another query is "
        "asked at every step, as pull mode does. It is written into the pipeline.",
    )
    if typed.strip() != asked:
        form.ask(typed.strip())
    span = st.selectbox("Time", [*_SPANS, _OWN_SPAN], index=2)
    now = datetime.now(UTC).replace(microsecond=0)
    if span == _OWN_SPAN:
        # Defaults of a moment would be others at the next one, and what was chosen with them.
        st.session_state.setdefault("from", now.replace(tzinfo=None, second=0) - timedelta(days=3))
        st.session_state.setdefault("to", now.replace(tzinfo=None, second=0))
        left, right = st.columns(2)
        first = left.datetime_input("From (UTC)", key="from")
        last = right.datetime_input("To (UTC)", key="to")
        begin_ms, end_ms = _ms(first), _ms(last)
        if begin_ms >= end_ms:
            st.warning("It ends before it begins.")
            return None
    else:
        begin_ms = _ms(now - timedelta(hours=_SPANS[span]))
        end_ms = _ms(now)
    client, limits = shop.client, shop.limits
    return lambda pipeline, look: recorded.of_database(client, pipeline, begin_ms, end_ms, limits, look)


def _ms(moment: datetime) -> int:
    known = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return round(known.timestamp() * 1000)
