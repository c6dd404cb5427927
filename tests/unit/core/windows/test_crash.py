"""A worker that is lost at any write of its own leaves windows and scores as if nothing had been."""

import functools
import os
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openanomaly.core import kernels
from parts.part import missing
from unit.core.windows import scenario, world
from unit.core.windows.world import Play

SEEDS = (2, 4, 6)
EVERY = int(os.environ.get("OPENANOMALY_TEST_CRASH_EVERY", "16"))
"""Of how many writes one is the end of a worker; 1 takes ten minutes and tries all."""


@pytest.fixture(scope="module", autouse=True)
def each_way() -> Iterator[None]:
    """Compiled every other life: a run may be compiled once and repeated without, or the other way."""
    kernels.warm_up()
    if not kernels.WINDOWS.ready():
        missing("numba", "uv sync --all-extras")
    with pytest.MonkeyPatch.context() as patch:
        for stage in (kernels, kernels.WINDOWS):
            patch.setattr(stage, "ready", lambda: Play.begun % 2 == 0)
        yield


@functools.cache
def undisturbed(seed: int) -> Play:
    return Play(scenario.pipelines()).run(scenario.events(seed))


def check(seed: int, fuses: list[int]) -> None:
    calm = undisturbed(seed)
    crashed = Play(scenario.pipelines(), fuses).run(scenario.events(seed))

    assert crashed.lives > 1
    world.same_as_undisturbed(crashed.broker, crashed.partition, calm.broker, calm.partition)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_scenario_has_what_it_should(seed: int) -> None:
    calm = undisturbed(seed)
    said = calm.broker.said()

    assert len(said) > 300
    assert calm.partition.counts["evicted"] > 0
    assert calm.partition.counts["late"] > 0
    assert max(int(b.catalogue.generation[: b.rows].max()) for b in calm.partition.blocks.values()) > 1
    assert any(f.score.max() > 1 for f in calm.broker.scores)
    assert len(calm.broker.forecasts) > 20


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.timeout(900)
def test_a_crash_at_any_write(seed: int) -> None:
    for fuse in range(seed, undisturbed(seed).broker.writes, EVERY):
        check(seed, [fuse])


@settings(max_examples=40, deadline=None)
@given(
    seed=st.sampled_from(SEEDS),
    first=st.integers(0, 200),
    then=st.lists(st.integers(0, 40), min_size=1, max_size=4),
)
def test_crashes_while_recovering(seed: int, first: int, then: list[int]) -> None:
    check(seed, [first, *then])
