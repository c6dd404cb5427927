"""The simulated fleet: who is in it, and that a seed decides everything."""

from collections import Counter

import numpy as np
import pytest

from openanomaly.demo.fleet import DAY, Fleet, Kind

WEEK = 7 * DAY


def test_a_seed_decides_every_value() -> None:
    np.testing.assert_array_equal(Fleet(200, 3).take(50), Fleet(200, 3).take(50))
    assert not np.array_equal(Fleet(200, 3).take(50), Fleet(200, 4).take(50))


def test_values_do_not_depend_on_how_many_steps_are_taken_at_once() -> None:
    one, other = Fleet(200, 3), Fleet(200, 3)
    np.testing.assert_array_equal(one.take(24), np.concatenate([other.take(n) for n in (1, 7, 16)]))


@pytest.mark.parametrize("series", [200, 201, 2000])
def test_every_series_has_labels_of_its_own(series: int) -> None:
    fleet = Fleet(series, 1)
    assert len(set(fleet.labels)) == len(fleet) == series
    assert len({fleet.name(i) for i in range(series)}) == series
    assert all(list(own) == sorted(own) for own in fleet.labels)


def test_the_smallest_fleet_has_all_kinds_of_series_in_number() -> None:
    kinds = Counter(Fleet(200, 1).kind.tolist())
    assert set(kinds) == set(Kind)
    assert min(kinds.values()) >= 8


def test_only_counters_are_named_as_the_product_takes_for_counters() -> None:
    fleet = Fleet(200, 1)
    for own, kind in zip(fleet.labels, fleet.kind, strict=True):
        is_named = dict(own)["__name__"].endswith(("_total", "_count", "_sum", "_bucket"))
        assert is_named == (kind == Kind.COUNTER)


def test_kinds_move_as_they_are_named() -> None:
    fleet = Fleet(200, 1)
    values = fleet.take(WEEK)
    assert (values >= 0).all()
    assert (np.ptp(values[:, fleet.kind == Kind.CONSTANT], axis=0) == 0).all()
    one_day_apart = np.array([np.corrcoef(v[DAY:], v[:-DAY])[0, 1] for v in values.T if np.ptp(v)])
    moving = fleet.kind[fleet.kind != Kind.CONSTANT]
    for kind, low, high in (
        (Kind.DAILY, 0.8, 1.0),
        (Kind.COUNTER, 0.8, 1.0),
        (Kind.NOISY, -0.3, 0.3),
        (Kind.SPIKY, -0.3, 0.3),
    ):
        found = one_day_apart[moving == kind]
        assert low < found.min(), kind
        assert found.max() < high, kind
    spiky = values[:, fleet.kind == Kind.SPIKY]
    assert (spiky.max(axis=0) > 5 * np.median(spiky, axis=0)).all()


def test_a_restarted_series_begins_small_and_grows_back() -> None:
    fleet = Fleet(200, 1)
    rows = np.flatnonzero(fleet.kind == Kind.WARMING)
    before = fleet.take(DAY)[-1, rows]
    fleet.restart(rows)
    after = fleet.take(DAY)[:, rows]
    assert (after[0] < 0.6 * before).all()
    np.testing.assert_allclose(after[-1], before, rtol=0.05)
