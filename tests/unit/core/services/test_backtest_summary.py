"""Figures, episodes and curves of a backtest, whatever chunks it comes in."""

import numpy as np
import pytest

from dues import Echo
from openanomaly.core.recording import RecordedSeries
from openanomaly.core.services.backtest import Backtest
from openanomaly.core.services.backtest_summary import AROUND, BINS, Summary
from waves import START_MS, STEP_MS, pipeline

STEPS = 3000
TIMES = START_MS + STEP_MS * np.arange(STEPS)


def recording() -> list[RecordedSeries]:
    rng = np.random.default_rng(5)
    calm, odd = rng.standard_normal((2, STEPS))
    odd[2000:2003] += 50
    odd[2500] = 1e300
    return [
        RecordedSeries((("__name__", name),), TIMES, values)
        for name, values in (("calm", calm), ("odd", odd))
    ]


def summary(chunk_steps: int, **options: object) -> Summary:
    test = Backtest(pipeline(), {"auto": Echo()}, recording(), chunk_steps=chunk_steps)
    out = Summary(2, STEP_MS, (int(TIMES[0]), int(TIMES[-1])), curves=True, **options)  # type: ignore[arg-type]
    for steps in test.run():
        out.add(steps)
    return out


@pytest.fixture(scope="module")
def whole() -> Summary:
    return summary(STEPS)


def test_the_worst_series_comes_first_with_its_episode(whole: Summary) -> None:
    assert whole.worst(2) == [1, 0]
    odd = whole.series[1]
    assert (odd.steps, odd.scored) == (STEPS, STEPS - 3)
    assert odd.max_score == 10
    spike = next(e for e in odd.episodes if e.start_ms <= TIMES[2000] <= e.end_ms)
    assert spike.peak > 5
    assert spike.reason > 0
    assert odd.episode_count == len(odd.episodes)


def test_chunks_make_no_difference(whole: Summary) -> None:
    parts = summary(170)
    for one, other in zip(parts.series, whole.series, strict=True):
        assert one.episodes == other.episodes
        assert (one.steps, one.scored, one.anomalous, one.max_score, one.unforecast) == (
            other.steps, other.scored, other.anomalous, other.max_score, other.unforecast,
        )  # fmt: skip
    for i in range(2):
        for name in ("time_ms", "low", "high", "lower", "upper", "expected", "score"):
            np.testing.assert_array_equal(getattr(parts.curve(i), name), getattr(whole.curve(i), name))


def test_a_curve_has_the_extremes_of_each_point(whole: Summary) -> None:
    curve = whole.curve(0)
    assert len(curve.time_ms) == BINS
    values = recording()[0].value.reshape(BINS, STEPS // BINS)
    np.testing.assert_array_equal(curve.low, values.min(axis=1).astype(np.float32))
    np.testing.assert_array_equal(curve.high, values.max(axis=1).astype(np.float32))
    assert np.isfinite(whole.curve(1).high).all(), "what is beyond float32 is at its end"


def test_the_neighbourhood_of_the_highest_score_is_shown_step_by_step(whole: Summary) -> None:
    near = whole.series[1].closeup
    assert near is not None
    assert len(near.time_ms) == 2 * AROUND
    assert (np.diff(near.time_ms) == STEP_MS).all()
    assert near.score[AROUND] == whole.series[1].max_score


def test_known_events_are_judged() -> None:
    found = summary(400, known=[[], [(int(TIMES[2000]), int(TIMES[2002]))]])
    outcome = found.finish()
    assert outcome is not None
    assert (outcome.events, outcome.found_after) == (1, (1,))
    assert found.series[0].outcome is not None
    assert found.series[0].outcome.events == 0
    assert summary(400).finish() is None
