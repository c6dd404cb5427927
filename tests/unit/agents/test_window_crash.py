"""A window worker that is killed at any await leaves windows and scores as if nothing had been."""

import asyncio
import functools
import os
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unit.agents.lossy import Play
from unit.core.windows import drive, scenario, world
from unit.core.windows.world import Event, Infer, Samples, TickNow

SEEDS = (2, 4)
EVERY = int(os.environ.get("OPENANOMALY_TEST_CRASH_EVERY", "100"))
"""Of how many awaits one is the end of a worker; 1 takes half an hour and tries all."""


def events(seed: int) -> list[Event]:
    """Seed 4 has a backlog in it: what is read, computed and written overlaps."""
    found = scenario.events(seed)
    if seed == 4:
        backlog = [event for event in found[40:100] if isinstance(event, Samples)]
        found[40:100] = backlog
    return found


def play(seed: int, fuses: Sequence[int] = (), *, keeps: bool = False, turns: int | None = None) -> Play:
    return asyncio.run(Play(scenario.pipelines(), fuses, keeps=keeps, turns=turns).run(events(seed)))


@functools.cache
def undisturbed(seed: int) -> Play:
    return play(seed)


def check(seed: int, fuses: Sequence[int], *, keeps: bool) -> None:
    calm = undisturbed(seed)
    crashed = play(seed, fuses, keeps=keeps)

    assert len(crashed.lives) > len(calm.lives)
    assert crashed.counts["in"] == crashed.counts["accepted"] + drive.dropped(crashed.counts)
    world.same_as_undisturbed(crashed.broker, crashed.partition, calm.broker, calm.partition)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_scenario_has_what_it_should(seed: int) -> None:
    calm = undisturbed(seed)

    assert len(calm.broker.said()) > 300
    assert calm.checkpoints > 8
    assert calm.lives[0] > 800
    assert calm.counts["evicted"] > 0
    assert calm.counts["out_of_order"] > 0
    assert len(calm.broker.forecasts) > 20
    assert calm.broker.committed[0] == len(calm.broker.samples)


@pytest.mark.parametrize("keeps", [False, True], ids=["what was not confirmed is lost", "is there"])
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.timeout(3000)
def test_a_crash_at_any_await(seed: int, keeps: bool) -> None:
    for fuse in range(seed + keeps, undisturbed(seed).lives[0], EVERY):
        check(seed, [fuse], keeps=keeps)


@pytest.mark.parametrize("keeps", [False, True], ids=["what was not confirmed is lost", "is there"])
@pytest.mark.timeout(3000)
def test_a_crash_at_any_await_of_a_recovery(keeps: bool) -> None:
    """The backlog is taken in one checkpoint's time, and repeated by each recovery."""
    seed, fuse = 4, 480
    awaits = play(seed, [fuse], keeps=keeps).recoveries[1]
    assert awaits > 300
    for then in range(1 + keeps, awaits + 1, -(-EVERY // 2)):
        check(seed, [fuse, then], keeps=keeps)


@settings(max_examples=8, deadline=None)
@given(
    seed=st.sampled_from(SEEDS),
    first=st.integers(1, 800),
    then=st.lists(st.integers(1, 60), min_size=1, max_size=4),
    keeps=st.booleans(),
)
def test_crash_upon_crash(seed: int, first: int, then: list[int], keeps: bool) -> None:
    check(seed, [first, *then], keeps=keeps)


def agree_with_what_was_said(play: Play) -> int:
    """How many steps of windows were scored; each has the value that the score told."""
    said, count = play.broker.said(), 0
    for block in play.partition.blocks.values():
        rows = block.catalogue.live_rows()
        closed, step_ms = block.state["closed"][rows], block.spec.step_ms
        window = block.ring.windows(rows, closed, block.catalogue.born[rows])
        for i, row in enumerate(rows.tolist()):
            for scoring in block.scorings:
                for ago in range(block.spec.context):
                    end_ms = int(closed[i] - ago + 1) * step_ms
                    told = said.get((scoring.pipeline.name, block.catalogue.labels[row], end_ms))
                    if told is not None and closed[i] - ago >= block.catalogue.born[row]:
                        assert np.float32(told[1] - block.catalogue.base[row]) == window[i, -1 - ago]
                        count += 1
    return count


@pytest.mark.parametrize("keeps", [False, True], ids=["what was not confirmed is lost", "is there"])
@settings(max_examples=8, deadline=None)
@given(
    seed=st.sampled_from(SEEDS),
    fuses=st.lists(st.integers(1, 150), min_size=1, max_size=8),
    turns=st.integers(1, 12),
)
def test_whatever_comes_while_writes_are_on_their_way_a_step_has_one_verdict(
    keeps: bool, seed: int, fuses: list[int], turns: int
) -> None:
    """Forecasts and ticks may then come in another order than without the crash, but not to other eyes."""
    crashed = play(seed, fuses, keeps=keeps, turns=turns)

    assert crashed.broker.committed[0] == len(crashed.broker.samples)
    crashed.broker.asked_for()
    assert agree_with_what_was_said(crashed) > 250


def late_fleet() -> list[Event]:
    """Two minutes of samples that are read, from the eighth step on, ten minutes later than they came."""
    start_ms, now_ms, out = 1_700_000_000_000, 0, []
    for step in range(18):
        at_ms = start_ms + step * 10_000 + 5_000
        now_ms = at_ms if step < 8 else max(now_ms + 30_000, start_ms + 600_000)
        rows = [(f"s{i}", at_ms, float(step % 3 + i)) for i in range(3)]
        out += [Samples(drive.frame(rows, at_ms).encode()), TickNow(now_ms)]
        if step < 8:
            out += [Infer(), TickNow(now_ms + 1)]
    return out


@pytest.mark.parametrize("turns", [1, 2, 4])
@pytest.mark.parametrize("keeps", [False, True], ids=["what was not confirmed is lost", "is there"])
def test_a_repeat_judges_by_the_forecasts_of_the_run_however_old_they_are(keeps: bool, turns: int) -> None:
    events, calm = late_fleet(), asyncio.run(Play([drive.pipeline()], turns=turns).run(late_fleet()))
    for fuse in range(1, calm.lives[0]):
        crashed = asyncio.run(Play([drive.pipeline()], [fuse], keeps=keeps, turns=turns).run(events))
        assert crashed.broker.said(), "each step with one verdict"
