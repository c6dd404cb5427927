"""State, independence of rows, and what is promised of one pipeline's scores."""

import numpy as np
import pytest
from pydantic import ValidationError

from openanomaly.core.frames import ScoreFlag
from openanomaly.core.pipelines.pipeline import ScoreOptions
from openanomaly.core.scoring.blocks import PAGE, phase_of
from openanomaly.core.scoring.reason import Reason
from openanomaly.core.scoring.scorer import Judged, Scorer
from openanomaly.core.scoring.state import State

LEVELS_Z = np.array([-1.645, -0.842, 0.0, 0.842, 1.645])
FAST = ScoreOptions(block=24, memory=5, warmup=30)


def fleet(rows: int, steps: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(steps, rows) values, (steps, rows, 5) forecasts and which samples are there."""
    rng = np.random.default_rng(seed)
    y = rng.standard_normal((steps, rows)) * np.exp(rng.standard_normal((steps, rows)))
    y += 1e6 * (np.arange(rows) % 7)
    band = y[..., None] + rng.standard_normal((steps, rows, 1)) + LEVELS_Z
    band[rng.random((steps, rows)) < 0.1] = np.nan
    return y, band, rng.random((steps, rows)) < 0.9


def run(scorer: Scorer, state: State, y: np.ndarray, band: np.ndarray, start: int = 0) -> list[Judged]:
    """Every step of all rows as slices."""
    rows = slice(0, y.shape[1])
    return [
        scorer.update(state, rows, np.full(len(v), t), v, q)
        for t, (v, q) in enumerate(zip(y, band, strict=True), start)
    ]


def scores(judged: list[Judged]) -> np.ndarray:
    return np.array([j.score for j in judged])


def same(a: State, b: State) -> list[str]:
    return [k for k in a if not np.array_equal(a[k], b[k], equal_nan=a[k].dtype.kind == "f")]


def one_by_one(scorer: Scorer, y: np.ndarray, band: np.ndarray | None = None) -> list[Judged]:
    """Every step of one series."""
    band = np.full((len(y), 5), np.nan) if band is None else band
    return run(scorer, scorer.allocate(1), y[:, None], band[:, None])


def told(y: np.ndarray, width: float = 1.0) -> np.ndarray:
    """Forecasts around 0 of a series around 0."""
    return np.zeros(len(y))[:, None] + width * LEVELS_Z


def test_a_row_does_not_see_the_others_whether_it_comes_in_a_slice_or_an_array() -> None:
    y, band, there = fleet(2100, 130)
    scorer = Scorer(FAST)
    whole, split, runs = (scorer.allocate(2100) for _ in range(3))
    for t in range(len(y)):
        rows = np.flatnonzero(there[t])
        bucket = np.full(rows.size, t + 1000)
        a = scorer.update(whole, rows, bucket, y[t, rows], band[t, rows])
        edges = np.flatnonzero(np.diff(rows) > 1) + 1
        for state, parts in ((split, np.array_split(rows, 3)), (runs, np.split(rows, edges))):
            out = [
                scorer.update(
                    state,
                    slice(part[0], part[-1] + 1) if state is runs else part,
                    np.full(part.size, t + 1000),
                    y[t, part],
                    band[t, part],
                )
                for part in parts
            ]
            for field in Judged.__dataclass_fields__:
                got = np.concatenate([getattr(o, field) for o in out])
                np.testing.assert_array_equal(got, getattr(a, field), err_msg=field)
    assert same(whole, split) == []
    assert same(whole, runs) == []
    assert np.nanmax(a.score) > 1  # the comparison saw alarms


def test_rows_at_different_buckets_are_judged_as_if_alone() -> None:
    y, band, _ = fleet(40, 200)
    scorer = Scorer(FAST)
    shift = np.arange(40) * 5
    together, alone = scorer.allocate(40), scorer.allocate(40)
    for t in range(200):
        a = scorer.update(together, slice(0, 40), t + shift, y[t], band[t])
        for r in (0, 13, 39):
            b = scorer.update(
                alone, slice(r, r + 1), t + shift[r : r + 1], y[t, r : r + 1], band[t, r : r + 1]
            )
            np.testing.assert_array_equal(b.score, a.score[r : r + 1])


def test_a_step_leaves_the_state_of_other_rows_alone() -> None:
    y, band, _ = fleet(50, 80)
    scorer = Scorer(FAST)
    state = scorer.allocate(50)
    run(scorer, state, y[:60], band[:60])
    before = {k: v.copy() for k, v in state.items()}
    rows = np.array([3, 17])
    scorer.update(state, rows, np.array([60, 60]), y[60, rows], band[60, rows])
    others = np.setdiff1d(np.arange(50), rows)
    assert same({k: v[others] for k, v in state.items()}, {k: v[others] for k, v in before.items()}) == []


def test_a_restart_forgets_nothing() -> None:
    """The fields are the whole state: bytes of each, and nothing else, continue the run."""
    y, band, _ = fleet(1500, 160)
    scorer = Scorer(FAST)
    state = scorer.allocate(1500)
    run(scorer, state, y[:100], band[:100])
    after = Scorer(FAST)
    restored = after.allocate(2048)
    for f in scorer.fields:
        assert state[f.name].dtype.str == np.dtype(f.dtype).str
        values = np.frombuffer(state[f.name].tobytes(), f.dtype).reshape(1500, *f.tail)
        restored[f.name][:1500] = values
    for t in range(100, 160):
        a = scorer.update(state, slice(0, 1500), np.full(1500, t), y[t], band[t])
        b = after.update(restored, slice(0, 1500), np.full(1500, t), y[t], band[t])
        np.testing.assert_array_equal(a.score, b.score)
        np.testing.assert_array_equal(a.flags, b.flags)
    assert same(state, {k: v[:1500] for k, v in restored.items()}) == []


def test_cold_fields_change_only_where_a_block_was_filed() -> None:
    y, band, _ = fleet(3000, 100)
    scorer = Scorer(FAST)
    state = scorer.allocate(3000)
    cold = [f.name for f in scorer.fields if not f.hot]
    filed_at: dict[int, set[int]] = {}
    for t in range(100):
        before = {k: state[k].copy() for k in cold}
        judged = scorer.update(state, slice(0, 3000), np.full(3000, t), y[t], band[t])
        for k in cold:
            changed = (before[k] != state[k]).reshape(3000, -1).any(axis=1)
            assert not (changed & ~judged.filed).any(), k
        for page in range(3):
            mine = judged.filed[page * PAGE : (page + 1) * PAGE]
            assert mine.all() or not mine.any()
            if mine.any() and t:
                filed_at.setdefault(page, set()).add(t % FAST.block)
    assert len({frozenset(v) for v in filed_at.values()}) == 3  # pages at different times
    assert all(len(v) == 1 for v in filed_at.values())
    assert np.unique(phase_of(np.arange(100) * PAGE, 144)).size > 60


def test_a_reset_row_is_a_fresh_one() -> None:
    y, band, _ = fleet(30, 90)
    scorer = Scorer(FAST)
    state = scorer.allocate(30)
    run(scorer, state, y, band)
    scorer.reset(state, np.array([4, 5]))
    fresh = scorer.allocate(30)
    assert same({k: v[[4, 5]] for k, v in state.items()}, {k: v[[4, 5]] for k, v in fresh.items()}) == []


def test_state_is_small() -> None:
    assert sum(f.row_bytes for f in Scorer.fields) <= 400


def test_no_score_in_warmup_and_one_for_each_step_behind_it() -> None:
    judged = one_by_one(Scorer(ScoreOptions(warmup=50)), np.random.default_rng(0).standard_normal(80))
    got = np.isfinite(scores(judged)[:, 0])
    assert not got[:50].any()
    assert got[50:].all()


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_a_spike_of_one_range_scores_above_one_at_once_and_its_neighbours_stay_below(seed: int) -> None:
    rng = np.random.default_rng(seed)
    t = np.arange(1010)
    y = 50 + 10 * np.sin(t[:, None] / 17 + np.arange(20)) + rng.uniform(-1, 1, (1010, 20))
    band = (y + rng.uniform(-1, 1, y.shape))[..., None] + LEVELS_Z
    y[1000, 7] = y[:1000, 7].max() + np.ptp(y[:1000, 7])
    scorer = Scorer(ScoreOptions())
    score = scores(run(scorer, scorer.allocate(20), y, band))
    assert score[1000, 7] > 1
    assert score[990:1000, 7].max() < 1
    assert np.delete(score[1000:], 7, axis=1).max() < 1


def test_normal_life_scores_near_zero() -> None:
    rng = np.random.default_rng(4)
    y = rng.standard_normal((1500, 50))
    scorer = Scorer(ScoreOptions())
    score = scores(run(scorer, scorer.allocate(50), y, np.zeros((1500, 50, 1)) + LEVELS_Z))
    assert np.nanmedian(score) < 0.1
    assert np.nanmean(score > 1) < 1e-3


def test_the_second_occurrence_is_an_alarm_and_the_third_is_normal() -> None:
    rng = np.random.default_rng(5)
    y = rng.uniform(-1, 1, 3000)
    at = [1000, 1500, 2000, 2500]
    y[at] = 9.0
    score = scores(one_by_one(Scorer(ScoreOptions(channels=("value",))), y))[:, 0]
    assert (score[at[:2]] > 1).all()
    assert (score[at[2:]] < 1).all()


def test_what_is_older_than_memory_is_forgotten() -> None:
    rng = np.random.default_rng(6)
    y = rng.uniform(-1, 1, 3000)
    y[[300, 350]] = 9.0
    y[[1000, 2500]] = 9.0
    score = scores(one_by_one(Scorer(ScoreOptions(channels=("value",), block=24, memory=40)), y))[:, 0]
    assert score[1000] < 1
    assert score[2500] > 1


def test_a_level_that_stays_is_learned_by_the_second_block() -> None:
    rng = np.random.default_rng(7)
    y = rng.standard_normal(1500)
    shift = 7 * 144 + 12
    y[shift:] += 12
    score = scores(one_by_one(Scorer(ScoreOptions()), y, told(y)))[:, 0]
    assert (score[shift : shift + 50] > 1).all()
    assert np.flatnonzero(score > 1)[-1] < 8 * 144 + 12


def test_a_step_back_in_a_forecasts_error_is_one_episode_with_its_cause() -> None:
    rng = np.random.default_rng(8)
    y = rng.standard_normal(1200)
    y[1000:1010] += 30
    judged = one_by_one(Scorer(ScoreOptions()), y, told(y))
    flags = np.array([j.flags[0] for j in judged])
    starts = np.flatnonzero(flags & ScoreFlag.START)
    assert starts.tolist() == [1000]
    ends = np.flatnonzero(flags & ScoreFlag.END)
    assert ends.size == 1
    score = scores(judged)[:, 0]
    assert ends[0] == np.flatnonzero(score > 1)[-1] + 24
    assert not (flags[ends] & ScoreFlag.OPEN).any()


def test_an_episode_remembers_start_peak_and_the_reason_of_its_peak() -> None:
    y = np.tile([0.0, 1.0], 600)
    y[1001], y[1003] = 3.0, -9.0
    scorer = Scorer(ScoreOptions(channels=("value",)))
    state = scorer.allocate(1)
    judged = run(scorer, state, y[:, None], np.full((1200, 1, 5), np.nan))
    assert state["start"][0] == 1001
    assert state["peak"][0] == judged[1003].score[0]
    assert state["reason"][0] == Reason.VALUE_BELOW


def test_flags_say_young_and_without_forecast() -> None:
    rng = np.random.default_rng(9)
    y = rng.standard_normal(2600)
    band = told(y)
    band[2550:] = np.nan
    flags = np.array([j.flags[0] for j in one_by_one(Scorer(ScoreOptions()), y, band)])
    assert (flags[:2500] & ScoreFlag.YOUNG).all()
    assert not (flags[2500:] & ScoreFlag.YOUNG).any()
    assert not (flags[:2550] & ScoreFlag.NO_FORECAST).any()
    assert (flags[2550:] & ScoreFlag.NO_FORECAST).all()


def test_the_first_forecast_ever_is_no_alarm() -> None:
    rng = np.random.default_rng(10)
    y = rng.standard_normal(1000)
    band = told(y)
    band[:600] = np.nan
    score = scores(one_by_one(Scorer(ScoreOptions()), y, band))[:, 0]
    assert np.nanmax(score[600:]) < 1


@pytest.mark.parametrize(("offset", "unit"), [(0.0, 8.0), (1e9, 8.0), (-1e10, 8.0), (1e15, 8e6)])
def test_a_large_level_does_not_hide_a_small_signal(offset: float, unit: float) -> None:
    """Of a billionth of the level; what is smaller counts as jitter."""
    rng = np.random.default_rng(11)
    y = np.round(unit * rng.standard_normal(800)) + offset
    y[0] = 0.0  # the first value tells nothing of the level to come
    y[700] = offset + 12 * unit
    score = scores(one_by_one(Scorer(ScoreOptions(memory=3)), y))[:, 0]
    assert score[700] > 1


def test_values_beyond_float32_give_numbers() -> None:
    y = np.where(np.arange(400) % 50 == 49, 1e300, -1e300)
    judged = one_by_one(Scorer(ScoreOptions()), y)
    assert np.isfinite(scores(judged)[200:]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": ("value", "loud")}, r"'loud'.*mean_12"),
        ({"data_range": (2.0, 1.0)}, r"expected \[lower, upper\], found \[2.0, 1.0\]"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ScoreOptions.model_validate(options)


def test_a_slow_wave_is_no_anomaly_where_a_block_begins() -> None:
    """What a series did a step ago is in memory, though the new block has nothing yet."""
    rng, steps, n = np.random.default_rng(0), 1500, 100
    t = np.arange(steps)[:, None]
    wave = rng.uniform(3, 20, n) * np.sin(2 * np.pi * t / rng.uniform(600, 3000, n) + rng.uniform(0, 6, n))
    y = 50 + wave + rng.normal(0, 1, (steps, n))
    scorer = Scorer(ScoreOptions())
    state, absent = scorer.allocate(n), np.full((n, 5), np.nan)
    high = np.array(
        [scorer.update(state, slice(0, n), np.full(n, i), y[i], absent).score > 1 for i in range(steps)]
    )
    turns = np.arange(288, steps, 144)

    assert high[turns].mean() < 0.03
    assert high[288].mean() < 0.2, "with two blocks only"
