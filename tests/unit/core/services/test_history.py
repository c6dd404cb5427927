"""Which selectors find many series. That databases take them: tests/contract/tsdb_client."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages import named
from openanomaly.core.pipelines.selector import Selector
from openanomaly.core.series import Labels, canonical, decode_labels, encode_labels
from openanomaly.core.services.history import SELECTOR_BYTES, groups

TEXT = st.text(st.sampled_from('ab"\\\n.|()*+?[]{}^$ü'), min_size=1, max_size=6)
SERIES = st.dictionaries(st.sampled_from(["__name__", "a", "b", "c"]), TEXT, min_size=1).map(
    lambda labels: canonical(labels.items())
)


def blocks(*series: Labels) -> list[bytes]:
    return [encode_labels(labels) for labels in series]


def test_series_of_a_name_are_found_together() -> None:
    found = groups(
        blocks(
            named("cpu", host="a", mode="user"),
            named("mem", host="a"),
            named("cpu", host="b.c", mode="user"),
            named("cpu", host="a"),
        ),
        size=100,
    )
    assert {group.selector: group.rows for group in found} == {
        '{__name__="cpu",host=~"a|b\\\\.c",mode="user"}': (0, 2),
        '{__name__="mem",host="a"}': (1,),
        '{__name__="cpu",host="a"}': (3,),
    }


def test_labels_that_a_database_does_not_have_are_left_out() -> None:
    (found,) = groups(blocks(named("cpu", dc="eu", host="a")), 100, absent=("dc",))
    assert found.selector == '{__name__="cpu",host="a"}'


@pytest.mark.parametrize(("series", "size", "queries"), [(1000, 500, 2), (1001, 500, 3), (500, 500, 1)])
def test_a_selector_is_for_so_many_series(series: int, size: int, queries: int) -> None:
    found = groups(blocks(*(named("cpu", host=f"host-{i:04}") for i in range(series))), size)
    assert len(found) == queries
    assert sorted(row for group in found for row in group.rows) == list(range(series))


def test_a_selector_does_not_get_too_long() -> None:
    found = groups(blocks(*(named("cpu", path="x" * 1000 + str(i)) for i in range(100))), 500)
    assert all(len(group.selector) <= SELECTOR_BYTES for group in found)
    assert sorted(row for group in found for row in group.rows) == list(range(100))


@given(st.lists(SERIES, unique=True, max_size=12), st.integers(1, 5))
def test_every_series_is_found_by_the_selector_of_its_group(series: list[Labels], size: int) -> None:
    all_blocks = blocks(*series)
    found = groups(all_blocks, size)
    assert sorted(row for group in found for row in group.rows) == list(range(len(series)))
    for group in found:
        assert len(group.rows) <= size
        selector = Selector.parse(group.selector)
        for row in group.rows:
            have = dict(decode_labels(all_blocks[row]))
            assert all(m.accepts(have.get(m.name, "")) for m in selector.matchers)
