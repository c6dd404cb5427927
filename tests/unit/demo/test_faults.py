"""Faults have the size they are said to have, in units of each series' own normal range."""

import numpy as np
import pytest
from numpy.typing import NDArray

from openanomaly.demo.faults import (
    COPIES,
    DRIFT,
    DROP,
    FROZEN,
    ONE_SERIES,
    RESET,
    RESTART,
    RESTARTED_JOB,
    SHIFT,
    SPIKE,
    Fault,
    FaultKind,
    World,
    deployments,
    plan,
    restart,
)
from openanomaly.demo.fleet import DAY, F64, Fleet, Kind

STEP_S = 300.0
HISTORY = 2 * DAY
AT = HISTORY + 10


def rates(world: World, steps: int, *faults: Fault) -> F64:
    """What series do in the next steps: gauges as they are, counters as rates per second."""
    before = world._total.copy()
    value = world.take(steps, faults).value
    counter = world.fleet.kind == Kind.COUNTER
    value[:, counter] = np.diff(np.vstack([before[counter], value[:, counter]]), axis=0) / STEP_S
    return value


def nothing(fleet: Fleet) -> NDArray[np.int64]:
    """No series has had a fault."""
    return np.zeros(len(fleet), np.int64)


def twins() -> tuple[World, World]:
    """Two worlds with the same past and, without faults, the same future."""
    worlds = World(Fleet(200, 5), STEP_S), World(Fleet(200, 5), STEP_S)
    for world in worlds:
        world.take(HISTORY)
    return worlds


def series_of(kind: FaultKind, world: World) -> list[int]:
    """One series of each kind that may have the fault."""
    return [int(np.flatnonzero(world.fleet.kind == k)[1]) for k in kind.kinds]


@pytest.mark.parametrize(
    ("kind", "part"),
    [(SPIKE, np.ones(1)), (SHIFT, np.ones(48)), (DRIFT, np.arange(1, 49) / 48)],
    ids=lambda x: getattr(x, "name", ""),
)
def test_what_is_added_is_a_part_of_the_normal_range(kind: FaultKind, part: F64) -> None:
    ill, well = twins()
    span = ill.span.copy()
    faults = [Fault(kind, i, AT, AT + kind.length) for i in series_of(kind, ill)]
    difference = rates(ill, 100, *faults) - rates(well, 100)
    for i in series_of(kind, ill):
        wanted = np.zeros(100)
        wanted[10 : 10 + kind.length] = kind.size * span[i] * part
        np.testing.assert_allclose(difference[:, i], wanted, atol=1e-6 * span[i])
    others = np.setdiff1d(np.arange(200), series_of(kind, ill))
    assert not difference[:, others].any()


def test_the_normal_range_is_from_the_lowest_to_the_highest_value_without_faults() -> None:
    ill, well = twins()
    faults = [Fault(SPIKE, i, AT, AT + 1) for i in series_of(SPIKE, ill)]
    seen = np.vstack([rates(World(Fleet(200, 5), STEP_S), HISTORY)])
    np.testing.assert_allclose(ill.span, np.ptp(seen, axis=0), rtol=1e-6, atol=1e-9)
    ill.take(11, faults)
    well.take(11)
    assert all(ill.span[f.series] < well.span[f.series] + 1e-12 for f in faults)


def test_dropped_series_are_zero_and_dropped_counters_stand_still() -> None:
    world, _ = twins()
    faults = [Fault(DROP, i, AT, AT + DROP.length) for i in series_of(DROP, world)]
    value = rates(world, 40, *faults)
    for fault in faults:
        inside = np.zeros(40, bool)
        inside[10 : 10 + DROP.length] = True
        np.testing.assert_array_equal(value[:, fault.series] == 0, inside)


def test_a_frozen_series_keeps_the_value_it_had() -> None:
    world, _ = twins()
    faults = [Fault(FROZEN, i, AT, AT + FROZEN.length) for i in series_of(FROZEN, world)]
    value = rates(world, 60, *faults)
    for fault in faults:
        inside = value[9 : 10 + FROZEN.length, fault.series]
        assert np.ptp(inside) == 0
        assert (np.diff(value[10 + FROZEN.length - 1 :, fault.series]) != 0).all()


def test_a_reset_counter_begins_at_zero_and_counts_on_as_it_did() -> None:
    ill, well = twins()
    (i,) = series_of(RESET, ill)
    reset, plain = ill.take(20, [Fault(RESET, i, AT, AT + 1)]).value[:, i], well.take(20).value[:, i]
    increase = np.diff(plain)
    np.testing.assert_allclose(np.diff(reset)[10:], increase[10:])
    assert reset[10] == pytest.approx(increase[9])
    np.testing.assert_array_equal(reset[:10], plain[:10])


def test_a_rolling_restart_takes_every_instance_away_for_some_steps_but_never_all_at_once() -> None:
    world, _ = twins()
    faults = restart(world.fleet, AT)
    members = [i for i, job in enumerate(world.fleet.job) if job == RESTARTED_JOB]
    assert sorted(f.series for f in faults) == members
    samples = world.take(80, faults)
    away = ~samples.is_there
    np.testing.assert_array_equal(away.sum(axis=0) == 3, np.isin(np.arange(200), members))
    assert away[:, members].sum(axis=1).max() < len(members)
    for fault in faults:
        if world.fleet.kind[fault.series] == Kind.COUNTER:
            before, after = fault.start - 1 - HISTORY, fault.stop - HISTORY
            assert samples.value[after, fault.series] < samples.value[before, fault.series]


def test_values_do_not_depend_on_how_many_steps_are_taken_at_once() -> None:
    one, other = twins()
    faults = plan(one.fleet, HISTORY, 5, nothing(one.fleet))
    whole = one.take(120, faults)
    parts = [other.take(n, faults) for n in (1, 50, 8, 61)]
    np.testing.assert_array_equal(whole.value, np.concatenate([p.value for p in parts]))
    np.testing.assert_array_equal(whole.is_there, np.concatenate([p.is_there for p in parts]))


@pytest.mark.parametrize("series", [200, 500, 2000])
@pytest.mark.parametrize("seed", range(3))
def test_a_round_has_copies_of_every_fault_on_series_of_their_own(series: int, seed: int) -> None:
    fleet = Fleet(series, seed)
    faults = plan(fleet, HISTORY, seed, nothing(fleet))
    single = [f for f in faults if f.kind is not RESTART]
    assert {k: sum(f.kind is k for f in single) for k in ONE_SERIES} == dict.fromkeys(ONE_SERIES, COPIES)
    assert len({f.series for f in faults}) == len(faults)
    assert all(Kind(fleet.kind[f.series]) in f.kind.kinds for f in faults)
    assert min(f.start for f in faults) > HISTORY
    assert faults == plan(Fleet(series, seed), HISTORY, seed, nothing(fleet))


def test_rounds_and_seeds_differ_in_who_has_which_fault() -> None:
    fleet = Fleet(200, 1)
    chosen = {
        tuple(f.series for f in plan(fleet, at, seed, nothing(fleet)))
        for at in (1440, 1700)
        for seed in (1, 2)
    }
    assert len(chosen) == 4


def test_later_rounds_choose_series_that_had_the_fewest_faults() -> None:
    fleet = Fleet(200, 1)
    had = nothing(fleet)
    for start in range(HISTORY, HISTORY + 1500, 300):
        plan(fleet, start, 1, had)
    assert had.sum() == 5 * len(ONE_SERIES) * COPIES
    # Fewer series are daily ones than have the faults of daily ones: some are chosen twice, none more often.
    assert had.max() == 2


def test_every_day_of_the_history_has_a_rolling_restart() -> None:
    fleet = Fleet(200, 1)
    faults = deployments(fleet, 5, 1)
    days = {f.start // DAY for f in faults if f.series == faults[0].series}
    assert days == set(range(5))
