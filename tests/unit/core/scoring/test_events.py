"""How well alarms meet events that are known."""

import math

import numpy as np
import pytest

from openanomaly.core.scoring.events import Outcome, judge, total

STEP_MS = 60_000


def outcome(alarms: list[int], events: list[tuple[int, int]], steps: int = 1440, warmup: int = 0) -> Outcome:
    score = np.zeros(steps, np.float32)
    score[alarms] = 2
    score[:warmup] = np.nan
    moments = [(a * STEP_MS, b * STEP_MS) for a, b in events]
    return judge(STEP_MS * np.arange(steps), score, STEP_MS, moments)


@pytest.mark.parametrize(
    ("alarms", "events", "good", "false", "after"),
    [
        ([], [], 0, 0, ()),
        ([100], [(100, 100)], 1, 0, (1,)),
        ([101], [(100, 100)], 0, 1, ()),
        ([105, 106], [(100, 110)], 1, 0, (6,)),
        ([100, 112], [(100, 112)], 1, 0, (1,)),
        ([100, 113], [(100, 113)], 2, 0, (1,)),
        ([100, 500], [(100, 100), (300, 310)], 1, 1, (1,)),
        (list(range(100, 104)), [(100, 100)], 1, 0, (1,)),
        (list(range(1440)), [(100, 100)], 1, 9, (1,)),
        ([100, 101], [(100, 100), (101, 101)], 1, 0, (1,)),
        ([50], [(40, 60), (45, 70)], 1, 0, (11,)),
        ([1439], [(5000, 6000)], 0, 1, ()),
    ],
)
def test_outcomes(alarms: list, events: list, good: int, false: int, after: tuple) -> None:
    found = outcome(alarms, events)
    assert (found.good, found.false, found.found_after) == (good, false, after)


def test_figures() -> None:
    found = outcome([100, 500], [(100, 100), (300, 310)])
    assert (found.events, found.recall, found.precision, found.f1) == (2, 0.5, 0.5, 0.5)
    assert found.days == pytest.approx((1440 - 12) / 1440)
    assert found.false_a_day == pytest.approx(1440 / 1428)
    both = total([found, outcome([7, 8], [(5, 9)])])
    assert (both.events, both.found, both.alarms, both.false) == (3, 2, 3, 1)
    assert both.median_found_after == 2
    assert both.days == pytest.approx((1428 + 1435) / 1440)


def test_a_moment_is_in_the_step_that_holds_it() -> None:
    score = np.array([0, 2, 0], np.float32)
    for moment in (60_000, 119_999):
        assert judge(STEP_MS * np.arange(3), score, STEP_MS, [(moment, moment)]).found_after == (1,)
    for moment in (59_999, 120_000):
        assert judge(STEP_MS * np.arange(3), score, STEP_MS, [(moment, moment)]).found == 0


def test_an_event_in_warm_up_does_not_count() -> None:
    found = outcome([], [(10, 12)], warmup=50)
    assert found.events == 0
    assert math.isnan(found.recall)
    assert math.isnan(found.precision)
    assert found.f1 == 0
    assert judge(np.zeros(0, np.int64), np.zeros(0, np.float32), STEP_MS, [(1, 2)]) == Outcome()
