"""Combinations of options that can do nothing, or were surely not meant: each as a sentence."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from openanomaly.core.pipelines.selector import Selector

if TYPE_CHECKING:
    from openanomaly.core.pipelines.mute import MuteWindow
    from openanomaly.core.pipelines.pipeline import Pipeline, ScoreOptions

LARGEST_SCORE = 10.0
"""Scores end here (core/scoring/channels.py)."""
_SIDELESS = ("quiet", "froze")
_DAY_S, _WEEK_S = 86_400, 7 * 86_400
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_CLOSING = {"(": ")", "[": "]", "{": "}"}


def of_score(options: ScoreOptions) -> Iterator[str]:
    """What is impossible among the options of scoring."""
    if options.warmup > options.memory * options.block:
        yield (
            f"warmup={options.warmup} steps is more than memory={options.memory} blocks of "
            f"block={options.block} steps: what was seen is forgotten before the first score"
        )
    silent = [name for name in options.channels or () if name in _SIDELESS]
    if options.direction != "both" and silent:
        yield (
            f"channels: {silent[0]!r} has no side and never speaks with direction={options.direction}; "
            "leave it out, or set direction: both"
        )
    if options.data_range is not None and not any(map(math.isfinite, options.data_range)):
        yield "data_range=[-inf, inf] excludes no value: at least one side must be a number"
    if covers_the_week([window for window in options.mute if not window.learn]):
        yield "mute: windows with learn=false cover the whole week, so that no step is ever scored"


def of_pipeline(pipeline: Pipeline) -> Iterator[str]:
    """What is impossible among the options of a pipeline."""
    if pipeline.min_context > pipeline.context:
        yield f"min_context={pipeline.min_context} is more than context={pipeline.context}"
    if pipeline.forecast_every > pipeline.horizon:
        yield (
            f"forecast_every={pipeline.forecast_every} is more than horizon={pipeline.horizon}: "
            "steps would be left without a forecast"
        )
    yield from _of_values(pipeline)


def _of_values(pipeline: Pipeline) -> Iterator[str]:
    """What the values of a pipeline's steps can never be."""
    kind = "rate" if pipeline.transform == "rate" else "count" if pipeline.aggregate == "count" else None
    if kind is None:
        return
    score = pipeline.score
    if score.data_range is not None and score.data_range[1] < 0:
        yield f"score.data_range={list(score.data_range)} excludes every value: a {kind} is never negative"
    if score.direction == "below" and score.min_relative_deviation > 1:
        yield (
            f"score.min_relative_deviation={score.min_relative_deviation:g} is never exceeded with "
            f"direction=below: a {kind} falls by its expected value at most, which is 1"
        )


def of_selector(selector: Selector) -> str | None:
    """Why no series can be selected; None if one can."""
    for wanted in selector.matchers:
        for other in selector.matchers:
            if wanted.operator == "=" and wanted.name == other.name and not other.accepts(wanted.value):
                return (
                    f"selector {selector.text!r} selects nothing: {wanted.name}={wanted.value!r} and "
                    f"{other.name}{other.operator}{other.value!r} exclude each other"
                )
    return None


def of_query(query: str) -> str | None:
    """Why a text is no PromQL, as far as its quotes and brackets tell; None if they do not."""
    if not query.strip():
        return "the query is empty"
    expected: list[str] = []
    at = 0
    while at < len(query):
        char = query[at]
        if char in "\"'`":
            end = _end_of_string(query, at)
            if end is None:
                return f"the query {query!r} has no closing {char} for the one at position {at + 1}"
            at = end
        elif char == "#":
            end_of_line = query.find("\n", at)
            at = len(query) if end_of_line < 0 else end_of_line
        elif char in _CLOSING:
            expected.append(_CLOSING[char])
        elif char in _CLOSING.values() and (not expected or expected.pop() != char):
            return f"the query {query!r} has a {char!r} at position {at + 1} that closes nothing"
        at += 1
    return f"the query {query!r} ends before {expected[-1]!r}" if expected else None


def _end_of_string(text: str, start: int) -> int | None:
    """Where the string that begins at `start` has its closing quote."""
    quote, at = text[start], start + 1
    while at < len(text) and text[at] != quote:
        at += 2 if text[at] == "\\" and quote != "`" else 1
    return at if at < len(text) else None


def covers_the_week(windows: Sequence[MuteWindow]) -> bool:
    """Whether no moment of a week is outside of windows of one time zone."""
    return any(
        _covered([window for window in windows if window.timezone == zone])
        for zone in {window.timezone for window in windows}
    )


def _covered(windows: Sequence[MuteWindow]) -> bool:
    spans = []
    for window in windows:
        start, end = (t.hour * 3600 + t.minute * 60 + t.second for t in (window.start, window.end))
        length = (end - start) % _DAY_S or _DAY_S
        for day in window.days:
            begins = _DAYS.index(day) * _DAY_S + start
            # Twice, since what begins on Sunday ends on Monday.
            spans += [(begins - _WEEK_S, begins - _WEEK_S + length), (begins, begins + length)]
    reached = 0
    for begins, ends in sorted(spans):
        if begins > reached:
            return False
        reached = max(reached, ends)
    return reached >= _WEEK_S
