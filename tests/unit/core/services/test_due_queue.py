"""Which contexts make the next batch, and when."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dues import FAR_MS, due_frame
from openanomaly.core.services.due_queue import Cut, DueQueue, Key, Part, Request
from openanomaly.core.services.shapes import PADDING_LIMIT, lengths

A, B = Key("a", 4, 64), Key("b", 4, 64)


def ten(key: Key) -> int:
    return 10


def request(rows: int, useful_until_ms: int = FAR_MS, steps: int = 64) -> Request:
    return Request.of(due_frame(0, rows, steps, useful_until_ms=useful_until_ms), 5, lambda _: None)


def put(queue: DueQueue, key: Key, one: Request, now_s: float) -> None:
    queue.put(key, Part(one, np.arange(len(one.frame.row))), now_s)


def taken(cut: Cut | None) -> list[tuple[Request, int, int]]:
    return [] if cut is None else [(p.request, int(p.rows[0]), int(p.rows[-1]) + 1) for p in cut.parts]


def test_nothing_waits_at_first() -> None:
    queue = DueQueue(1.0)
    assert queue.ready_in_s(0.0, ten) is None
    assert queue.cut(0.0, 0, ten) is None


def test_a_part_of_a_batch_waits_for_others_and_then_goes_alone() -> None:
    queue = DueQueue(1.0)
    one = request(3)
    put(queue, A, one, 5.0)
    assert queue.ready_in_s(5.25, ten) == 0.75
    assert queue.cut(5.25, 0, ten) is None
    assert taken(queue.cut(6.0, 0, ten)) == [(one, 0, 3)]
    assert queue.rows == 0


def test_a_full_batch_does_not_wait_and_what_is_over_stays() -> None:
    queue = DueQueue(1.0)
    one, two = request(7), request(7)
    put(queue, A, one, 0.0)
    put(queue, A, two, 0.5)
    assert queue.ready_in_s(0.5, ten) == 0.0
    assert taken(queue.cut(0.5, 0, ten)) == [(one, 0, 7), (two, 0, 3)]
    assert queue.rows == 4
    assert queue.ready_in_s(0.5, ten) == 1.0, "the rest waits since it came"
    assert taken(queue.cut(1.5, 0, ten)) == [(two, 3, 7)]


def test_groups_do_not_mix_and_the_one_that_waited_longest_is_first() -> None:
    queue = DueQueue(1.0)
    old, full = request(2), request(12)
    put(queue, B, old, 0.0)
    put(queue, A, full, 0.9)
    assert taken(queue.cut(0.95, 0, ten)) == [(full, 0, 10)], "the old one may still wait"
    put(queue, A, request(10), 1.0)
    cut = queue.cut(1.1, 0, ten)
    assert cut is not None
    assert (cut.key, taken(cut)) == (B, [(old, 0, 2)])


def test_what_is_no_longer_useful_is_left_out_and_makes_room() -> None:
    queue = DueQueue(0.0)
    stale, fresh = request(8, useful_until_ms=100), request(8, useful_until_ms=101)
    put(queue, A, stale, 0.0)
    put(queue, A, fresh, 0.0)
    cut = queue.cut(0.0, 100, ten)
    assert cut is not None
    assert taken(cut) == [(fresh, 0, 8)]
    assert [(p.request, len(p)) for p in cut.stale] == [(stale, 8)]
    assert queue.rows == 0


@given(
    st.lists(st.tuples(st.sampled_from([A, B]), st.integers(1, 30)), max_size=20),
    st.integers(1, 12),
)
def test_every_row_is_taken_once_in_the_order_of_its_group(puts: list[tuple[Key, int]], size: int) -> None:
    queue = DueQueue(0.0)
    wanted: dict[Key, list[tuple[int, int]]] = {A: [], B: []}
    number = {}
    for i, (key, rows) in enumerate(puts):
        one = request(rows)
        number[id(one)] = (i, one)
        put(queue, key, one, float(i))
        wanted[key] += [(i, row) for row in range(rows)]
    found: dict[Key, list[tuple[int, int]]] = {A: [], B: []}
    while (cut := queue.cut(100.0, 0, lambda key: size)) is not None:
        assert 0 < cut.rows <= size
        for part in cut.parts:
            found[cut.key] += [(number[id(part.request)][0], row) for row in part.rows.tolist()]
    assert found == wanted
    assert queue.rows == 0


LADDER = lengths(512)


@given(
    st.lists(st.tuples(st.integers(64, 512), st.integers(1, 40)), min_size=1, max_size=12), st.integers(1, 64)
)
def test_shorter_contexts_fill_a_batch_up_to_the_limit_of_padding(
    asked: list[tuple[int, int]], size: int
) -> None:
    """Counted in known steps, not in the length of the line that a context waits in."""
    queue = DueQueue(0.0)
    rows = {}
    for i, (steps, n) in enumerate(asked):
        one = request(n, steps=steps)
        rows[id(one)] = (one, np.zeros(n, int))
        put(queue, Key("a", 4, int(LADDER[np.searchsorted(LADDER, steps)])), one, float(i))
    while (cut := queue.cut(100.0, 0, lambda key: size)) is not None:
        assert 0 < cut.rows <= size
        assert cut.known >= (1 - PADDING_LIMIT) * cut.rows * cut.key.length
        for part in cut.parts:
            assert part.request.frame.context.length <= cut.key.length
            rows[id(part.request)][1][part.rows] += 1
    assert all((n == 1).all() for _, n in rows.values())
    assert queue.rows == 0


def test_a_batch_takes_as_many_shorter_contexts_as_the_limit_allows() -> None:
    queue = DueQueue(0.0)
    put(queue, Key("a", 4, 512), request(30, steps=512), 0.0)
    put(queue, Key("a", 4, 256), request(40, steps=256), 1.0)
    cut = queue.cut(9.0, 0, lambda key: 1000)
    assert cut is not None
    assert cut.rows == 60, "30 x 512 and 30 x 256 leave a quarter of 60 x 512 empty"


def test_other_models_and_horizons_do_not_fill_a_batch() -> None:
    queue = DueQueue(0.0)
    for i, key in enumerate([Key("a", 4, 80), Key("b", 4, 64), Key("a", 8, 64), Key("a", 4, 64)]):
        put(queue, key, request(2, steps=key.length), float(i))
    found = [(cut.key, cut.rows) for cut in iter(lambda: queue.cut(9.0, 0, ten), None)]
    assert found == [(Key("a", 4, 80), 4), (Key("b", 4, 64), 2), (Key("a", 8, 64), 2)]


@pytest.mark.parametrize("order", [(64, 512), (512, 64)])
def test_stale_contexts_are_dropped_from_every_line_that_is_looked_at(order: tuple[int, int]) -> None:
    queue = DueQueue(0.0)
    for i, steps in enumerate(order):
        put(queue, Key("a", 4, steps), request(5, useful_until_ms=100, steps=steps), float(i))
    dropped = 0
    while (cut := queue.cut(9.0, 100, ten)) is not None:
        assert not cut.parts
        dropped += sum(map(len, cut.stale))
    assert dropped == 10
    assert queue.rows == 0
