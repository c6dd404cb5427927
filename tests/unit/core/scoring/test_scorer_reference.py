"""The scorer equals the rules written out for one series."""

import math
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from openanomaly.core.frames import ScoreFlag
from openanomaly.core.pipelines.pipeline import ScoreOptions
from openanomaly.core.scoring.reason import CHANNELS, Reason
from openanomaly.core.scoring.scorer import Scorer
from slow_scorer import SlowScorer

SHAPES = ("noise", "seasonal", "integers", "steps", "constant", "heavy", "walk")


def series(shape: str, length: int, seed: int, offset: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t = np.arange(length)
    y = {
        "noise": lambda: rng.standard_normal(length),
        "seasonal": lambda: np.sin(t / 7) + 0.1 * rng.standard_normal(length),
        "integers": lambda: rng.poisson(0.5, length).astype(float),
        "steps": lambda: (t // 37 % 2).astype(float),
        "constant": lambda: (t > length - 3).astype(float),
        "heavy": lambda: rng.standard_t(2, length),
        "walk": lambda: np.cumsum(rng.standard_normal(length)),
    }[shape]()
    return y + offset


@st.composite
def cases(draw: Any) -> tuple[ScoreOptions, np.ndarray, np.ndarray, np.ndarray]:
    block, memory = draw(st.integers(12, 40)), draw(st.integers(2, 8))
    channels = draw(st.sampled_from([None, ("value",), ("error", "froze"), ("mean_12", "quiet", "surprise")]))
    sided = channels is None or not {"quiet", "froze"} & set(channels)
    options = ScoreOptions(
        block=block,
        memory=memory,
        warmup=draw(st.integers(1, min(60, block * memory))),
        tolerance=draw(st.sampled_from([0.0, 0.2, 0.5])),
        direction=draw(st.sampled_from(["both", "above", "below"] if sided else ["both"])),
        scale=draw(st.sampled_from([(1.0, 1.0), (2.0, 1.0), (0.5, 3.0)])),
        min_deviation=draw(st.sampled_from([0.0, 0.5])),
        min_relative_deviation=draw(st.sampled_from([0.0, 0.2])),
        data_range=draw(st.sampled_from([None, (-2.0, 2.0)])),
        channels=channels,
        quiet=draw(st.integers(1, 30)),
    )
    length, seed = draw(st.integers(80, 400)), draw(st.integers(0, 2**31))
    y = series(draw(st.sampled_from(SHAPES)), length, seed, draw(st.sampled_from([0.0, 100.0])))
    rng = np.random.default_rng(seed + 1)
    forecast = np.roll(y, 1) * draw(st.sampled_from([1.0, 0.5]))
    width = draw(st.sampled_from([0.0, 0.1, 1.0]))
    band = forecast[:, None] + width * np.array([-2.0, -1, 0, 1.5, 2])
    band[rng.random(length) < draw(st.sampled_from([0.0, 0.3, 1.0]))] = np.nan
    skips = rng.random(length) < draw(st.sampled_from([0.0, 0.2]))
    bucket = np.cumsum(1 + skips * rng.integers(1, 90, length))
    return options, y, band, bucket


@settings(max_examples=60, deadline=None)
@given(cases())
def test_scores_are_those_of_the_rules_written_out_for_one_series(case: Any) -> None:
    options, y, band, bucket = case
    scorer, slow = Scorer(options), SlowScorer(options)
    state = scorer.allocate(1)
    for t in range(len(y)):
        judged = scorer.update(state, slice(0, 1), bucket[t : t + 1], y[t : t + 1], band[t : t + 1])
        parts = slow.step(int(bucket[t]), float(y[t]), band[t].tolist())
        if parts is None:
            assert np.isnan(judged.score[0])
            assert np.isnan(judged.raw[0])
            continue
        want = max(parts.values(), default=0.0)
        np.testing.assert_allclose(judged.raw[0], want, rtol=2e-3, atol=2e-3)
        assert judged.score[0] == (
            judged.raw[0] if judged.raw[0] >= 1 else np.float32(judged.raw[0]) ** 4
        ) or (math.isclose(judged.score[0], judged.raw[0] ** 4, rel_tol=1e-5))
        if judged.score[0] >= 1:
            assert name(Reason(judged.reason[0])) in parts, (t, parts, judged)
            assert parts[name(Reason(judged.reason[0]))] >= want - 2e-3 * max(want, 1)
        else:
            assert judged.reason[0] == Reason.NONE


def name(reason: Reason) -> str:
    """The part that a reason stands for."""
    if reason == Reason.OUT_OF_RANGE:
        return "out_of_range"
    channel = CHANNELS[(reason - 1) // 2]
    return channel if channel in ("quiet", "froze") else f"{channel} {'above' if reason % 2 else 'below'}"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=120), st.integers(1, 12))
def test_an_episode_starts_after_quiet_steps_only_and_ends_with_them(highs: list[bool], quiet: int) -> None:
    options = ScoreOptions(data_range=(0.0, 1.0), warmup=1, quiet=quiet)
    scorer = Scorer(options)
    state = scorer.allocate(1)
    absent = np.full((1, 5), np.nan)
    for t in range(2):
        scorer.update(state, slice(0, 1), np.array([t]), np.array([0.5]), absent)
    open_, calm = False, 0
    for t, high in enumerate(highs, 2):
        judged = scorer.update(state, slice(0, 1), np.array([t]), np.array([2.0 if high else 0.5]), absent)
        got = ScoreFlag(int(judged.flags[0])) & (ScoreFlag.START | ScoreFlag.OPEN | ScoreFlag.END)
        calm = 0 if high else calm + 1
        if high:
            assert got == (ScoreFlag.OPEN if open_ else ScoreFlag.START | ScoreFlag.OPEN)
            open_ = True
        elif open_:
            assert got == (ScoreFlag.END if calm == quiet else ScoreFlag.OPEN)
            open_ = calm < quiet
        else:
            assert not got
