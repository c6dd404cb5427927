"""Hypothesis strategies: pipelines with every option."""

import math
from typing import Any

from hypothesis import strategies as st
from pydantic import ValidationError

from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.scoring.reason import CHANNELS

names = st.one_of(
    st.from_regex(r"[a-zA-Z0-9_.:-]{1,64}", fullmatch=True),
    # What YAML, file systems and people read as something else.
    st.sampled_from(
        [
            ".",
            "..",
            "..data",
            "-",
            "--",
            "null",
            "true",
            "on",
            "1",
            "1.5",
            "1:30",
            "0x1f",
            "1e3",
            ".inf",
            "a:",
            "::",
        ]
    ),
)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
numbers = st.floats(0, 1e9, allow_nan=False)
factors = st.floats(1e-9, 1e9)
days = st.lists(st.sampled_from(["mon", "tue", "wed", "thu", "fri", "sat", "sun"]), min_size=1, unique=True)
mutes = st.fixed_dictionaries(
    {},
    optional={
        "days": days,
        "start": st.times().map(str),
        "end": st.times().map(str),
        "timezone": st.sampled_from(["UTC", "Europe/Berlin", "America/New_York"]),
        "learn": st.booleans(),
    },
)
scores = st.fixed_dictionaries(
    {},
    optional={
        "direction": st.sampled_from(["both", "above", "below"]),
        "min_deviation": numbers,
        "min_relative_deviation": st.floats(0, 1),
        "scale": st.tuples(factors, factors).map(list),
        "data_range": st.sampled_from([None, [0, 1.5], [-math.inf, 3], [-1e300, math.inf]]),
        "tolerance": st.floats(0, 10),
        "block": st.integers(12, 10_000),
        "memory": st.integers(2, 60_000),
        "warmup": st.integers(1, 24),
        "alert_score": st.floats(0.001, 9.99),
        "quiet": st.integers(1, 2**40),
        "channels": st.one_of(st.none(), st.lists(st.sampled_from(CHANNELS[:5]), min_size=1)),
        "mute": st.lists(mutes, max_size=3),
    },
)
options = st.fixed_dictionaries(
    {"name": names},
    optional={
        "selector": texts.map(lambda text: '{a="' + text.replace("\\", "\\\\").replace('"', '\\"') + '"}'),
        "transform": st.sampled_from(["auto", "none"]),
        "aggregate": st.sampled_from(["mean", "last", "min", "max", "sum"]),
        "step_s": st.floats(1, 86400),
        "lateness_s": st.floats(0, 3600),
        "context": st.integers(64, 8192),
        "min_context": st.integers(2, 64),
        "horizon": st.integers(16, 1024),
        "forecast_every": st.integers(1, 16),
        "model": st.sampled_from(["auto", "statistical", "./mine.onnx", "amazon/chronos-bolt-small"]),
        "score": scores,
        "group_by": st.lists(st.from_regex(r"label_[a-z0-9]{1,5}", fullmatch=True), max_size=3, unique=True),
        "labels": st.dictionaries(st.from_regex(r"label_[a-z0-9]{1,5}", fullmatch=True), texts, max_size=3),
    },
)


@st.composite
def pipelines(draw: st.DrawFn, of: st.SearchStrategy[dict[str, Any]] = options) -> Pipeline:
    """A definition that is taken, with only some of its options said."""
    chosen = draw(of)
    if "selector" not in chosen and draw(st.booleans()):
        chosen["query"] = draw(st.sampled_from(["sum by (job) (up)", 'rate(x{a="b"}[5m])\n  # of x\n', "é"]))
    try:
        return Pipeline.model_validate(chosen)
    except ValidationError:
        # Windows that cover the week, for one: what is refused is tested elsewhere.
        return Pipeline.model_validate({"name": chosen["name"]})
