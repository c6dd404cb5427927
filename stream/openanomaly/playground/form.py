"""The pipeline of a page: one YAML document, and a form that writes into it."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st

from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.errors import ConfigError
from openanomaly.playground import texts

_DOCUMENT, _SHOWN = "document", "shown"
"""Keys of the state of a page: the document, from which all else follows, and the last pipeline that it held.

Neither is a widget's, as a browser sends the values of all its widgets with whatever is done, also of those
that we have changed meanwhile. For the same reason the key of a widget has the value that it was drawn with:
what comes for another one is of the past. And no widget has a callback: one that is under way is given up
when the next thing is done, and what it was to write is lost. What a widget returns is compared with the
document.
"""
_STEPS = (10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
_Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Field:
    path: _Path
    label: str
    help: str

    def of(self, pipeline: Pipeline) -> Any:
        """The value of the option."""
        value: Any = pipeline
        for name in self.path:
            value = getattr(value, name)
        return _whole(value) if isinstance(value, float) else value

    def key(self, value: Any) -> str:
        return f"{'.'.join(self.path)}={value}"


_DIRECTION = _Field(("score", "direction"), "Direction", "Which side of normal counts.")
_STEP = _Field(("step_s",), "Step", "Spacing of what is scored; usually that of the samples.")
_MODEL = _Field(("model",), "Model", "What forecasts. auto is the built-in one.")
_TOLERANCE = _Field(
    ("score", "tolerance"), "Tolerance", "How far beyond what happened twice still counts as normal."
)
_ALERT = _Field(("score", "alert_score"), "Alert score", "Above it an episode begins.")
_DEVIATION = _Field(
    ("score", "min_deviation"),
    "Least deviation",
    "In the unit of the series; what is nearer is normal.",
)
_RELATIVE = _Field(
    ("score", "min_relative_deviation"),
    "Least relative deviation",
    "The same as a share of what is expected.",
)


def start(pipeline: Pipeline) -> None:
    """Begin with a pipeline."""
    _keep(texts.written(pipeline))


def has_begun() -> bool:
    """Whether the page has a document."""
    return _DOCUMENT in st.session_state


def put(path: _Path, value: Any) -> None:
    """Write an option into the document."""
    _keep(texts.put(st.session_state[_DOCUMENT], path, value))


def ask(asked: str) -> None:
    """Write into the document what a database is asked for."""
    _keep(texts.ask(st.session_state[_DOCUMENT], asked))


def show(models: Sequence[str]) -> tuple[Pipeline | None, bool]:
    """Draw the form.

    Returns:
        The pipeline that it holds, None while it holds none; whether it was changed, and so is to be drawn
        again: what is done next comes by the keys of now.
    """
    fields, below = st.container(), st.container()
    document: str = st.session_state[_DOCUMENT]
    problem = _problem(document)
    is_off = bool(problem)
    with below, st.expander("All options, as YAML", expanded=is_off):
        key = f"document={document}"
        text = st.text_area("Pipeline", document, key=key, height=220, label_visibility="collapsed")
    if text != document:
        _keep(text)
        problem = _problem(text)
        is_off = bool(problem)
    pipeline = shown()
    with fields:
        left, right = st.columns(2)
    changed = [
        _select(left, _STEP, _STEPS, pipeline, is_off, texts.duration),
        _select(right, _MODEL, models, pipeline, is_off),
        _select(left, _DIRECTION, ("both", "above", "below"), pipeline, is_off),
        _number(right, _ALERT, pipeline, is_off, 0.01, 0.1),
        _number(left, _TOLERANCE, pipeline, is_off, 0.0, 0.05),
        _number(right, _DEVIATION, pipeline, is_off, 0.0, None),
        _number(left, _RELATIVE, pipeline, is_off, 0.0, 0.05),
    ]
    if problem:
        below.error(texts.lines(problem))
        return None, text != document
    return shown(), text != document or any(changed)


def _problem(document: str) -> str:
    """Why it defines no pipeline; nothing if it does."""
    try:
        texts.parsed(document)
    except ConfigError as exc:
        return str(exc)
    return ""


def shown() -> Pipeline:
    """The last pipeline that the document held."""
    found: Pipeline = st.session_state[_SHOWN]
    return found


def _keep(document: str) -> None:
    st.session_state[_DOCUMENT] = document
    with contextlib.suppress(ConfigError):
        st.session_state[_SHOWN] = texts.parsed(document)


def _whole(number: float) -> float:
    return int(number) if number == int(number) else number


def _select(
    place: Any,
    field: _Field,
    options: Sequence[Any],
    pipeline: Pipeline,
    is_off: bool,
    said: Callable[[Any], str] = str,
) -> bool:
    value = field.of(pipeline)
    every = list(options) if value in options else [*options, value]
    chosen = place.selectbox(
        field.label,
        every,
        every.index(value),
        key=field.key(value),
        help=field.help,
        disabled=is_off,
        format_func=said,
    )
    return _take(field, value, chosen)


def _number(
    place: Any, field: _Field, pipeline: Pipeline, is_off: bool, least: float, step: float | None
) -> bool:
    value = float(field.of(pipeline))
    typed = place.number_input(
        field.label,
        min_value=min(least, value),
        value=value,
        step=step,
        format="%g",
        key=field.key(value),
        help=field.help,
        disabled=is_off,
    )
    return _take(field, value, typed)


def _take(field: _Field, drawn: Any, returned: Any) -> bool:
    """Whether a field was changed; then the document is too."""
    if returned is None or returned == drawn:
        return False
    put(field.path, returned)
    return True
