"""What of a request goes on, the compiled way and numpy's."""

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openanomaly.core import kernels
from openanomaly.core.identity import Identities
from openanomaly.core.intake import Intake, Taken
from openanomaly.core.series import Labels, encode_labels, ids_of
from openanomaly.core.series_column import SeriesKind
from parts.part import missing

NOW_MS = 1_764_000_000_000


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    kernels.warm_up()
    if not kernels.ready():
        missing("numba", "uv sync --all-extras")


SERIES: list[Labels] = [(("__name__", f"m_{i % 3}"), ("i", str(i))) for i in range(8)]
BLOCKS = [encode_labels(labels) for labels in SERIES]


def intake() -> Intake:
    """One that knows all of SERIES; the last one is not selected."""
    identities = Identities(4096, 4, lambda labels: labels != SERIES[-1])
    slots, _ = identities.admit(ids_of(BLOCKS).copy(), SERIES, BLOCKS)
    assert slots.tolist() == list(range(len(SERIES)))
    return Intake(identities, 60_000, 30_000, 600)


def take(by: Intake, series: list[int], ahead_ms: list[int], kind: list[int] | None, now_ms: int) -> Taken:
    n = len(series)
    return by.take(
        np.array(series, np.int32),
        [BLOCKS[i] if i >= 0 else b"" for i in series],
        np.arange(n, dtype=np.uint32),
        NOW_MS + np.array(ahead_ms, np.int64),
        np.arange(n, dtype=np.float64),
        None if kind is None else np.array(kind, np.uint8),
        now_ms,
    )


SENT = st.lists(
    st.tuples(
        st.integers(0, len(SERIES) - 1),
        st.sampled_from([0, 0, 0, 60_000, 60_001]),
        st.sampled_from([SeriesKind.UNKNOWN, SeriesKind.COUNTER, SeriesKind.GAUGE]),
    ),
    max_size=6,
)


@given(st.lists(st.tuples(SENT, st.booleans(), st.booleans()), max_size=5))
def test_both_ways_take_the_same(requests: list[tuple[list[tuple[int, int, int]], bool, bool]]) -> None:
    one, other = intake(), intake()
    for step, (sent, with_kinds, told) in enumerate(requests):
        now_ms = NOW_MS + step * 1000
        what = (
            [s for s, _, _ in sent],
            [a for _, a, _ in sent],
            [k for _, _, k in sent] if with_kinds else None,
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kernels, "ready", lambda: False)
            plain = take(other, *what, now_ms)
        fast = take(one, *what, now_ms)
        assert (fast.dropped, fast.late, fast.late_series) == (plain.dropped, plain.late, plain.late_series)
        for field in fields(plain.batch):
            if field.name != "is_even":
                a, b = getattr(fast.batch, field.name), getattr(plain.batch, field.name)
                assert np.array_equal(a, b), field.name
        if told:
            one.told(fast.batch, now_ms)
            other.told(plain.batch, now_ms)
        assert (one.identities.entries == other.identities.entries).all()


def test_usual_requests_are_taken_by_the_compiled_loop() -> None:
    by = intake()
    assert take(by, [0, 1, 2], [0, 0, 0], None, NOW_MS).batch.is_even
    assert not take(by, [0, 7], [0, 0], None, NOW_MS).batch.is_even
    assert not take(by, [0, 1], [0, 60_001], None, NOW_MS).batch.is_even


def test_a_slot_that_is_not_there_is_not_read() -> None:
    assert not take(intake(), [0, -1], [0, 0], None, NOW_MS).batch.is_even
