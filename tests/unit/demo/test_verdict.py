"""What counts as found, and what as a false alarm: judged from scores alone."""

import numpy as np
import pytest

from openanomaly.demo.faults import DROP, RESET, RESTART, SPIKE, Fault, FaultKind
from openanomaly.demo.verdict import (
    AGAIN,
    BEFORE,
    ECHO,
    LATE,
    MAY_BE_OF,
    QUIET,
    Verdict,
    judge,
    limit,
    onsets,
)

FIRST, STEPS = 1000, 400
FAULT = Fault(DROP, 0, FIRST + 100, FIRST + 112)
HIGH = 1.5


def judged(alarms: dict[int, list[int]], *faults: Fault, series: int = 3) -> Verdict:
    """The verdict where `alarms` says at which steps from FIRST on which series is high."""
    scores = np.full((STEPS, series), 0.1)
    for i, steps in alarms.items():
        scores[steps, i] = HIGH
    return judge(scores, FIRST, faults or (FAULT,))


@pytest.mark.parametrize(
    ("alarms", "after"),
    [
        ([100], 1),
        ([105, 106], 6),
        ([111], 12),
        ([112 + LATE - 1], 12 + LATE),
        ([112 + LATE], None),  # too late
        ([], None),
        ([100 - BEFORE - 1, 100], 1),  # it had ended before
        ([100 - BEFORE, 100], None),  # nobody would have seen the fault begin
        ([99, 100], None),
        (list(range(400)), None),
    ],
)
def test_a_fault_is_found_by_an_alarm_of_its_series_that_it_began(
    alarms: list[int], after: int | None
) -> None:
    (found,) = judged({0: alarms}).found
    assert found.after == after
    assert (found in judged({0: alarms}).missed) == (after is None)


@pytest.mark.parametrize(
    ("before", "at_fault", "after"), [(1.1, 2.3, 1), (1.1, 2.1, None), (10.0, 10.0, None)]
)
def test_a_series_that_alarms_already_must_score_twice_as_high(
    before: float, at_fault: float, after: int | None
) -> None:
    scores = np.full((STEPS, 1), 0.1)
    scores[98:100], scores[100:112] = before, at_fault
    (found,) = judge(scores, FIRST, [FAULT]).found
    assert found.was_alarming
    assert found.after == after


def test_an_alarm_of_another_series_does_not_find_it() -> None:
    verdict = judged({1: [100]})
    assert [f.after for f in verdict.found] == [None]
    assert [(a.series, a.step) for a in verdict.false_alarms] == [(1, FIRST + 100)]


def test_a_score_of_exactly_one_is_no_alarm() -> None:
    scores = np.full((STEPS, 1), 1.0)
    verdict = judge(scores, FIRST, [FAULT])
    assert [f.after for f in verdict.found] == [None]
    assert verdict.false_alarms == []


def test_the_peak_is_the_highest_score_of_the_fault() -> None:
    scores = np.full((STEPS, 1), 0.1)
    scores[[90, 100, 105, 130], 0] = 9, 1.2, 3.4, 8
    (found,) = judge(scores, FIRST, [FAULT]).found
    assert found.peak == pytest.approx(3.4)


def test_a_fault_without_any_score_is_missed() -> None:
    scores = np.full((STEPS, 1), np.nan)
    verdict = judge(scores, FIRST, [FAULT])
    assert [f.after for f in verdict.found] == [None]
    assert np.isnan(verdict.found[0].peak)
    assert verdict.series_days == 0


@pytest.mark.parametrize(
    ("alarms", "false"),
    [
        ([98], [98]),
        ([100, 111, 112 + ECHO - 1], []),
        ([100, 112 + ECHO], [112 + ECHO]),
        ([300], [300]),
    ],
)
def test_a_fault_and_its_echo_are_no_false_alarms_and_all_else_is(
    alarms: list[int], false: list[int]
) -> None:
    assert [a.step - FIRST for a in judged({0: alarms}).false_alarms] == false


@pytest.mark.parametrize(
    ("alarms", "begins"),
    [
        ([0], [0]),
        ([10, 11, 12], [10]),
        ([10, 10 + QUIET], [10]),
        ([10, 10 + QUIET + 1], [10, 10 + QUIET + 1]),
        (list(range(STEPS)), [0, AGAIN, 2 * AGAIN]),
    ],
)
def test_an_episode_counts_once_and_again_if_it_does_not_end(alarms: list[int], begins: list[int]) -> None:
    scores = np.full((STEPS, 1), np.nan)
    scores[alarms, 0] = HIGH
    assert np.flatnonzero(onsets(scores)[:, 0]).tolist() == begins


@pytest.mark.parametrize(
    "fault", [Fault(RESET, 1, FIRST + 50, FIRST + 51), Fault(RESTART, 1, FIRST + 50, FIRST + 53)]
)
def test_what_must_not_alarm_is_a_false_alarm_and_named_if_it_does(fault: Fault) -> None:
    (alarm,) = judged({1: [55]}, fault).false_alarms
    assert (alarm.series, alarm.step, alarm.fault) == (1, FIRST + 55, fault)
    assert judged({1: [55]}, fault).found == []
    (later,) = judged({1: [fault.stop - FIRST + MAY_BE_OF]}, fault).false_alarms
    assert later.fault is None


@pytest.mark.parametrize("kind", [RESET, RESTART])
def test_what_must_not_alarm_fails_the_demo_where_chance_does_not_explain_it(kind: FaultKind) -> None:
    """However far the limit of all false alarms is."""
    faults = [Fault(kind, i, FIRST + 50, FIRST + 53) for i in range(3)]
    for alarms, passes in ((0, True), (1, True), (2, False), (3, False)):
        verdict = judged({i: [52] for i in range(alarms)}, *faults, series=200)
        assert len(verdict.false_alarms) == alarms < verdict.limit
        assert verdict.passed == passes
        assert verdict.blamed == ({} if passes else {kind.name: alarms})


def test_what_was_judged_is_counted_without_faults_echoes_and_missing_scores() -> None:
    scores = np.full((288, 3), 0.1)
    scores[:144, 2] = np.nan
    verdict = judge(scores, FIRST, [FAULT])
    assert verdict.series_days * 288 == pytest.approx(288 * 2 + 144 - (12 + ECHO))


def test_the_limit_grows_with_what_was_judged_but_less_than_in_proportion() -> None:
    assert limit(0) == 0
    assert limit(100) == 17  # 10.4 expected, and two standard deviations
    assert limit(100) < limit(1000) < 10 * limit(100)


def test_a_round_passes_if_all_is_found_and_false_alarms_stay_under_the_limit() -> None:
    faults = [FAULT, Fault(SPIKE, 1, FIRST + 120, FIRST + 121)]
    assert judged({0: [101], 1: [120]}, *faults).passed
    assert not judged({0: [101]}, *faults).passed
    assert not judged({}, *faults).passed
    most = judged({}, *faults, series=200).limit
    noise = {i: [10] for i in range(2, 200)}
    for count, passes in ((most, True), (most + 1, False)):
        some = dict(list(noise.items())[:count])
        assert judged({0: [101], 1: [120], **some}, *faults, series=200).passed == passes


def test_a_detector_that_always_alarms_or_never_does_not_pass() -> None:
    never, always = np.full((STEPS, 200), 0.1), np.full((STEPS, 200), HIGH)
    for scores in (never, always):
        verdict = judge(scores, FIRST, [FAULT])
        assert not verdict.passed
        assert len(verdict.missed) == 1
    assert len(judge(always, FIRST, [FAULT]).false_alarms) > limit(STEPS * 200 / 288)
