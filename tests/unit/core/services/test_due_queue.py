"""Which contexts make the next batch, and when."""

from hypothesis import given
from hypothesis import strategies as st

from dues import FAR_MS, due_frame
from openanomaly.core.services.due_queue import Cut, DueQueue, Key, Request

A, B = Key("a", 4, 64), Key("b", 4, 64)


def ten(key: Key) -> int:
    return 10


def request(rows: int, useful_until_ms: int = FAR_MS) -> Request:
    return Request.of(due_frame(0, rows, useful_until_ms=useful_until_ms), 5, lambda _: None)


def taken(cut: Cut | None) -> list[tuple[Request, int, int]]:
    return [] if cut is None else [(p.request, p.start, p.stop) for p in cut.parts]


def test_nothing_waits_at_first() -> None:
    queue = DueQueue(1.0)
    assert queue.ready_in_s(0.0, ten) is None
    assert queue.cut(0.0, 0, ten) is None


def test_a_part_of_a_batch_waits_for_others_and_then_goes_alone() -> None:
    queue = DueQueue(1.0)
    one = request(3)
    queue.put(A, one, 5.0)
    assert queue.ready_in_s(5.25, ten) == 0.75
    assert queue.cut(5.25, 0, ten) is None
    assert taken(queue.cut(6.0, 0, ten)) == [(one, 0, 3)]
    assert queue.rows == 0


def test_a_full_batch_does_not_wait_and_what_is_over_stays() -> None:
    queue = DueQueue(1.0)
    one, two = request(7), request(7)
    queue.put(A, one, 0.0)
    queue.put(A, two, 0.5)
    assert queue.ready_in_s(0.5, ten) == 0.0
    assert taken(queue.cut(0.5, 0, ten)) == [(one, 0, 7), (two, 0, 3)]
    assert queue.rows == 4
    assert queue.ready_in_s(0.5, ten) == 1.0, "the rest waits since it came"
    assert taken(queue.cut(1.5, 0, ten)) == [(two, 3, 7)]


def test_groups_do_not_mix_and_the_one_that_waited_longest_is_first() -> None:
    queue = DueQueue(1.0)
    old, full = request(2), request(12)
    queue.put(B, old, 0.0)
    queue.put(A, full, 0.9)
    assert taken(queue.cut(0.95, 0, ten)) == [(full, 0, 10)], "the old one may still wait"
    queue.put(A, request(10), 1.0)
    cut = queue.cut(1.1, 0, ten)
    assert cut is not None
    assert (cut.key, taken(cut)) == (B, [(old, 0, 2)])


def test_what_is_no_longer_useful_is_left_out_and_makes_room() -> None:
    queue = DueQueue(0.0)
    stale, fresh = request(8, useful_until_ms=100), request(8, useful_until_ms=101)
    queue.put(A, stale, 0.0)
    queue.put(A, fresh, 0.0)
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
        queue.put(key, one, float(i))
        wanted[key] += [(i, row) for row in range(rows)]
    found: dict[Key, list[tuple[int, int]]] = {A: [], B: []}
    while (cut := queue.cut(100.0, 0, lambda key: size)) is not None:
        assert 0 < cut.rows <= size
        for part in cut.parts:
            found[cut.key] += [(number[id(part.request)][0], row) for row in range(part.start, part.stop)]
    assert found == wanted
    assert queue.rows == 0
