"""A worker that is lost between the parts of a page goes on from where each of them was."""

import functools
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openanomaly.core.windows import ahead, block, catalogue, partition, records, state_pages
from openanomaly.core.windows.records import read_key
from unit.core.windows import scenario, world
from unit.core.windows.world import Play, Worker


class Changing(Play):
    """Each life has another limit of records, as if pipelines came and went: whole pages, or parts."""

    limits = ((900_000, 900_000), (3_000, 400), (8_000, 250), (3_000, 900_000))
    patch: pytest.MonkeyPatch

    def _begin(self) -> Worker:
        pages, labels = self.limits[self.lives % len(self.limits)]
        for module in (records, state_pages):
            self.patch.setattr(module, "MOST_BYTES", pages)
        self.patch.setattr(catalogue, "MOST_BYTES", labels)
        return super()._begin()


@pytest.fixture(scope="module", autouse=True)
def small_parts() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (ahead, state_pages, partition, block):
            patch.setattr(module, "PART", 2)
        Changing.patch = patch
        yield


@functools.cache
def undisturbed(seed: int) -> Play:
    return Play(scenario.pipelines()).run(scenario.events(seed))


def check(seed: int, fuses: list[int]) -> Play:
    calm = undisturbed(seed)
    crashed = Changing(scenario.pipelines(), fuses).run(scenario.events(seed))
    world.same_as_undisturbed(crashed.broker, crashed.partition, calm.broker, calm.partition)
    return crashed


def test_a_crash_between_the_parts_of_a_page() -> None:
    """What was written of a page, and what was not, go on from where each of them was."""
    slots = set()
    for fuses in ([60, 30, 10, 200], [20, 250, 33], [7, 29]):
        crashed = check(2, fuses)
        slots |= {(read_key(r.key)[0], read_key(r.key)[3]) for r in crashed.broker.state}
    for kind in (records.CATALOGUE, records.HOT, records.COLD):
        of_kind = {slot for k, slot in slots if k == kind}
        assert 0 in of_kind, kind
        assert len(of_kind) > 2, kind


@settings(max_examples=40, deadline=None)
@given(
    seed=st.sampled_from((2, 4, 6)),
    first=st.integers(0, 300),
    then=st.lists(st.integers(0, 60), min_size=1, max_size=6),
)
def test_crashes_with_pages_in_parts(seed: int, first: int, then: list[int]) -> None:
    assert check(seed, [first, *then]).lives > 1
