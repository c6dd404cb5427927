"""Alerts that a rule on scores would have fired, by hand; against promtool in tests/integration/backtest."""

import numpy as np
import pytest

from openanomaly.core.scoring.firing import LOOKBACK_MS, firings

MINUTE = 60_000
NAN = float("nan")


def fired(scores: list[float], wait: int, step_ms: int = MINUTE) -> list[tuple[float, float, float]]:
    """In steps from the first one."""
    end_ms = 10 * MINUTE + np.arange(len(scores)) * step_ms
    found = firings(end_ms, np.array(scores), 1.0, wait * MINUTE)
    columns = (found.from_ms, found.fired_ms, found.until_ms)
    return [tuple((row - end_ms[0]) / step_ms) for row in np.column_stack(columns)]  # type: ignore[misc]


@pytest.mark.parametrize(
    ("scores", "wait", "expected"),
    [
        ([], 0, []),
        ([0.5, 1.0, 0.2], 0, []),
        ([0.5, 1.1, 0.2], 0, [(1, 1, 2)]),
        ([0, 2, 2, 2, 0], 2, [(1, 3, 4)]),
        ([0, 2, 2, 2, 0], 3, []),  # it is seen for three minutes, and has to be seen for longer
        ([2, 2, 0, 2, 2], 1, [(0, 1, 2), (3, 4, 9)]),  # nothing follows the last one: it is shown for five
        ([0, 2, NAN, NAN, 2, 0], 3, [(1, 4, 5)]),  # the one before is shown where there is none
        ([0, 2] + [NAN] * 5 + [2, 0], 3, [(1, 4, 6)]),  # but for five minutes only
        ([NAN, NAN], 0, []),
    ],
)
def test_a_rule_fires_where_a_score_is_high_for_long(
    scores: list[float], wait: int, expected: list[tuple[float, float, float]]
) -> None:
    assert fired(scores, wait) == expected


def test_a_score_is_late_and_the_one_before_is_gone_by_then() -> None:
    """Steps of five minutes, written ten seconds after their end: a rule that looks back sees all of them."""
    end_ms, score = np.arange(1, 9) * LOOKBACK_MS, np.full(8, 2.0)
    assert len(firings(end_ms, score, 1.0, 600_000, late_ms=10_000)) == 0
    looks_back = firings(end_ms, score, 1.0, 600_000, shown_ms=2 * LOOKBACK_MS, late_ms=10_000)
    assert looks_back.from_ms.tolist() == [LOOKBACK_MS]


def test_no_rule_that_waits_fires_on_steps_that_are_longer_than_a_sample_is_shown() -> None:
    assert fired([2.0] * 5, 5, step_ms=2 * LOOKBACK_MS) == []
    assert len(fired([2.0] * 5, 4, step_ms=2 * LOOKBACK_MS)) == 5
