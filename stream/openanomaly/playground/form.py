"""The pipeline of a page: one YAML document, and a form that writes into it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st
import yaml

from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.errors import ConfigError
from openanomaly.playground import texts

TEXT = "pipeline"
"""Key of the document in the state of a page; all else follows from it."""
_STEPS = (10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
_Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Field:
    path: _Path
    label: str
    help: str

    @property
    def key(self) -> str:
        return "form." + ".".join(self.path)


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
_FIELDS = (_DIRECTION, _STEP, _MODEL, _TOLERANCE, _ALERT, _DEVIATION, _RELATIVE)


def start(pipeline: Pipeline) -> None:
    """Begin with a pipeline."""
    st.session_state[TEXT] = texts.written(pipeline)
    _show()


def put(path: _Path, value: Any) -> None:
    """Write an option into the document."""
    st.session_state[TEXT] = texts.put(st.session_state[TEXT], path, value)
    _show()


def ask(asked: str) -> None:
    """Write into the document what a database is asked for."""
    st.session_state[TEXT] = texts.ask(st.session_state[TEXT], asked)
    _show()


def show(models: Sequence[str]) -> Pipeline | None:
    """Draw the form; the pipeline that it holds, None while it holds none."""
    try:
        pipeline = texts.parsed(st.session_state[TEXT])
    except ConfigError as exc:
        problem, is_wrong, pipeline = str(exc), True, None
    else:
        problem, is_wrong = "", False
    left, right = st.columns(2)
    _select(left, _STEP, _with(_STEPS, pipeline and _whole(pipeline.step_s)), is_wrong, texts.duration)
    _select(right, _MODEL, _with(models, pipeline and pipeline.model), is_wrong)
    _select(left, _DIRECTION, ("both", "above", "below"), is_wrong)
    _number(right, _ALERT, is_wrong, 0.01, 0.1)
    _number(left, _TOLERANCE, is_wrong, 0.0, 0.05)
    _number(right, _DEVIATION, is_wrong, 0.0, None)
    _number(left, _RELATIVE, is_wrong, 0.0, 0.05)
    with st.expander("All options, as YAML", expanded=is_wrong):
        st.text_area("Pipeline", key=TEXT, on_change=_show, height=220, label_visibility="collapsed")
    if is_wrong:
        st.error(_escaped(problem))
    return pipeline


def _escaped(text: str) -> str:
    return "\n\n".join(f"`{line}`" if "`" not in line else line for line in text.splitlines())


def _whole(number: float) -> float:
    return int(number) if number == int(number) else number


def _with(options: Sequence[Any], value: Any) -> list[Any]:
    """The options, and what is chosen if it is none of them."""
    return list(options) if value is None or value in options else [*options, value]


def _select(place: Any, field: _Field, options: Sequence[Any], is_off: bool, shown: Any = str) -> None:
    place.selectbox(
        field.label,
        options,
        key=field.key,
        help=field.help,
        disabled=is_off,
        format_func=shown,
        on_change=_write,
        args=(field,),
    )


def _number(place: Any, field: _Field, is_off: bool, least: float, step: float | None) -> None:
    place.number_input(
        field.label,
        min_value=least,
        step=step,
        format="%g",
        key=field.key,
        help=field.help,
        disabled=is_off,
        on_change=_write,
        args=(field,),
    )


def _write(field: _Field) -> None:
    """A field was changed: the document too."""
    st.session_state[TEXT] = texts.put(st.session_state[TEXT], field.path, st.session_state[field.key])


def _show() -> None:
    """The document was changed: the fields too."""
    try:
        pipeline = texts.parsed(st.session_state[TEXT])
    except (ConfigError, yaml.YAMLError):
        return
    for field in _FIELDS:
        value: Any = pipeline
        for name in field.path:
            value = getattr(value, name)
        st.session_state[field.key] = _whole(value) if field is _STEP else value
