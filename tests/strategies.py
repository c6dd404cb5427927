"""Hypothesis strategies: labels, series and requests as senders could have them."""

import math

from hypothesis import strategies as st

from messages import Series
from openanomaly.core.series import Labels
from openanomaly.core.stale import STALE

NOW_MS = 1_700_000_000_000

texts = st.text(st.sampled_from('abcXYZ_.:0 -\n"\\\0é世\U0001f30d'), min_size=1, max_size=20)
"""What can be a label's name or value: any UTF-8."""

values = st.one_of(
    st.floats(),
    st.sampled_from([0.0, -0.0, 1.0, math.nan, math.inf, -math.inf, float(STALE), 5e-324]),
)
timestamps = st.one_of(
    st.integers(NOW_MS - 10_000_000, NOW_MS),
    # At the edges of what six bytes hold, of four, and beyond any of them.
    st.sampled_from([0, 1, -1, 2**28, 2**35 - 1, 2**35, 2**42 - 1, 2**42, 2**62, -(2**63)]),
)


@st.composite
def labels(draw: st.DrawFn, names: st.SearchStrategy[str] = texts) -> Labels:
    """Valid labels with a metric name, in any order."""
    found = draw(st.dictionaries(names, texts, max_size=5))
    found["__name__"] = draw(texts)
    return tuple(draw(st.permutations(sorted(found.items()))))


@st.composite
def odd_labels(draw: st.DrawFn) -> Labels:
    """Labels that may be repeated, empty or without a name."""
    few = st.sampled_from(["__name__", "a", "b", "", "ü"])
    return tuple(draw(st.lists(st.tuples(few, st.sampled_from(["", "x", "y"])), max_size=4)))


@st.composite
def series(draw: st.DrawFn, of: st.SearchStrategy[Labels] | None = None) -> Series:
    """A time series, mostly with one sample."""
    samples = draw(
        st.one_of(
            st.tuples(st.tuples(timestamps, values)),
            st.lists(st.tuples(timestamps, values), max_size=4),
        )
    )
    return Series(
        draw(of if of is not None else labels()),
        samples,
        draw(st.lists(labels(), max_size=1)),
        draw(st.sampled_from([(), (), ({"count_int": 0, "timestamp": NOW_MS},), ({"count_int": 7},)])),
        draw(st.integers(0, 9)),
        draw(st.sampled_from([0, 0, NOW_MS - 1000, 5])),
    )


def requests(odd: bool = False) -> st.SearchStrategy[list[Series]]:
    """The series of one request; `odd` ones have labels that must be refused."""
    of = st.one_of(labels(), odd_labels()) if odd else labels()
    one = st.sampled_from([(("__name__", "again"),), (("__name__", "again"), ("a", "b"))])
    return st.lists(series(st.one_of(of, one)), max_size=12)
