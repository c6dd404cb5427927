"""Mute windows: which moments they hold, and what a pipeline says and learns in them."""

from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from pydantic import ValidationError

from openanomaly.core.frames import ScoreFlag
from openanomaly.core.pipelines.mute import Muted, MuteWindow, muted
from openanomaly.core.pipelines.pipeline import ScoreOptions
from openanomaly.core.scoring.scorer import Judged, Scorer

NIGHT = MuteWindow.model_validate(
    {"start": "22:00", "end": "04:00", "days": ["fri"], "timezone": "Europe/Berlin"}
)


def at(text: str, zone: str = "Europe/Berlin") -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


@pytest.mark.parametrize(
    ("moment", "holds"),
    [
        ("2026-11-27 21:59:59", False),  # a Friday
        ("2026-11-27 22:00:00", True),
        ("2026-11-28 03:59:59", True),
        ("2026-11-28 04:00:00", False),
        ("2026-11-28 22:30:00", False),
        ("2026-11-27 03:00:00", False),  # the night of Thursday
        ("2026-07-03 22:00:00", True),  # daylight saving: the hours are those of the clock on the wall
    ],
)
def test_a_window_over_midnight_belongs_to_the_day_on_which_it_starts(moment: str, holds: bool) -> None:
    assert NIGHT.holds(at(moment)) is holds


def test_a_window_without_hours_is_the_whole_day() -> None:
    sunday = MuteWindow(days=("sun",))
    days = [at(f"2026-11-{day} {hour}:30", "UTC") for day in (28, 29, 30) for hour in ("00", "12", "23")]
    assert [sunday.holds(moment) for moment in days] == [False] * 3 + [True] * 3 + [False] * 3


def test_of_two_windows_the_one_that_ignores_wins() -> None:
    windows = (
        MuteWindow(days=("sun",)),
        MuteWindow.model_validate({"start": "12:00", "end": "13:00", "learn": False}),
    )
    moments = np.array([at(f"2026-11-{d} {h}:30", "UTC") for d in (28, 29) for h in (11, 12)])
    found = muted(windows, moments)
    assert found is not None
    assert found.tolist() == [Muted.NO, Muted.IGNORED, Muted.LEARNED, Muted.IGNORED]
    assert muted(windows, moments[:1]) is None
    assert muted((), moments) is None


@pytest.mark.parametrize(
    ("window", "message"),
    [
        ({"timezone": "Mars/Olympus"}, "there is no time zone 'Mars/Olympus'"),
        ({"days": ["monday"]}, "'mon'"),
        ({"days": []}, "at least 1"),
        ({"start": "25:00"}, "start"),
        ({"start": "22:00Z"}, "expected HH:MM"),
        ({"start": 1440}, "expected HH:MM"),  # 24:00 without quotes
        ({"start": 36001}, "expected HH:MM"),  # 10:00:01
        ({"start": -1}, "expected HH:MM"),
        ({"from": "22:00"}, "from"),
    ],
)
def test_windows_that_cannot_be_are_refused(window: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ScoreOptions.model_validate({"mute": [window]})


def judge(options: ScoreOptions, y: np.ndarray, mute: np.ndarray) -> list[Judged]:
    scorer = Scorer(options)
    state = scorer.allocate(1)
    band = np.full((1, 5), np.nan)
    return [
        scorer.update(state, slice(0, 1), np.array([t]), y[t : t + 1], band, mute[t : t + 1])
        for t in range(len(y))
    ]


def spiky() -> tuple[np.ndarray, np.ndarray]:
    """Noise with three spikes, of which the first two are muted."""
    y = np.random.default_rng(0).uniform(-1, 1, 900)
    mute = np.zeros(900, np.uint8)
    y[[300, 500, 800]] = 20.0
    return y, mute


def test_a_muted_step_is_learned_and_raises_no_alarm() -> None:
    y, mute = spiky()
    mute[300:360] = mute[500:560] = Muted.LEARNED  # the means over 12 and 48 steps speak after the spike
    loud = judge(ScoreOptions(), y, np.zeros(900, np.uint8))
    said = judge(ScoreOptions(), y, mute)
    assert loud[300].score[0] > 1
    assert not any(j.flags[0] & ScoreFlag.START for j in said)
    assert said[300].score[0] == np.float32(0.99)
    assert said[300].reason[0] == 0
    assert said[300].flags[0] & ScoreFlag.MUTED
    assert not said[360].flags[0] & ScoreFlag.MUTED
    assert said[800].score[0] < 1  # twice is normal
    assert said[800].score[0] == loud[800].score[0]


def test_an_ignored_step_has_no_score_and_leaves_no_trace() -> None:
    y, mute = spiky()
    mute[[300, 500]] = Muted.IGNORED
    said = judge(ScoreOptions(), y, mute)
    assert np.isnan(said[300].score[0])
    assert said[300].flags[0] & ScoreFlag.MUTED
    assert said[800].score[0] > 1
    calm = y.copy()
    calm[[300, 500]] = 0.0
    never = judge(ScoreOptions(), np.delete(y, [300, 500]), np.zeros(898, np.uint8))
    assert [j.score[0] for j in said[501:790]] == pytest.approx([j.score[0] for j in never[499:788]], rel=0.2)


def test_an_alert_level_below_one_is_not_reached_either() -> None:
    y, mute = spiky()
    mute[300] = Muted.LEARNED
    said = judge(ScoreOptions(alert_score=0.5), y, mute)
    assert said[300].score[0] < 0.5
    assert not said[300].flags[0] & ScoreFlag.START
    outside = judge(ScoreOptions(data_range=(-5.0, 5.0)), y, mute)
    assert outside[300].score[0] < 1
    assert outside[500].score[0] == np.float32(1.01)
