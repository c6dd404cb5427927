"""What the demo sends is what a receiver reads, and what a sink writes is what it reads."""

import math

import numpy as np
import pytest

from openanomaly.adapters.remote_write.decode_v1 import decode
from openanomaly.adapters.remote_write.encode import ScoreEncoder, pack
from openanomaly.adapters.remote_write.unpack import unpack
from openanomaly.core.frames import ScoreFrame
from openanomaly.core.identity import Identities
from openanomaly.core.series import decode_labels, encode_labels
from openanomaly.core.series_column import SeriesColumn
from openanomaly.demo.faults import Samples
from openanomaly.demo.fleet import Fleet
from openanomaly.demo.target import Target
from openanomaly.demo.writing import Writer

STEP_MS, START_MS = 300_000, 1_700_000_100_000 // 300_000 * 300_000
FLEET = Fleet(200, 1)


def read(bodies: list[bytes]) -> dict[tuple[object, int], float]:
    """(labels, timestamp) -> value of every sample."""
    out = {}
    for body in bodies:
        identities = Identities(100_000, 1, lambda labels: True)
        columns = decode(unpack(body, 1 << 26), identities)
        assert columns.blocks is not None
        for row, at, value in zip(columns.row, columns.timestamp_ms, columns.value, strict=True):
            key = decode_labels(columns.blocks[row]), int(at)
            assert key not in out
            out[key] = float(value)
    return out


@pytest.mark.parametrize("steps", [1, 8, 400])
def test_requests_hold_every_sample_that_is_there_once(steps: int) -> None:
    random = np.random.default_rng(0)
    is_there = random.random((steps, 200)) < 0.9
    is_there[:, 5] = False
    value = random.normal(size=(steps, 200))
    time_ms = START_MS + np.arange(steps) * STEP_MS
    found = read(Writer(FLEET.labels).requests(Samples(value, is_there), time_ms))
    assert found == {
        (FLEET.labels[i], int(time_ms[k])): value[k, i]
        for k in range(steps)
        for i in range(200)
        if is_there[k, i]
    }


def test_halves_of_a_fleet_make_the_whole() -> None:
    samples = Samples(np.arange(1600.0).reshape(8, 200), np.ones((8, 200), bool))
    time_ms = START_MS + np.arange(8) * STEP_MS
    writer = Writer(FLEET.labels)
    halves = [read(writer.requests(samples, time_ms, slice(half, None, 2))) for half in (0, 1)]
    assert not set(halves[0]) & set(halves[1])
    assert halves[0] | halves[1] == read(writer.requests(samples, time_ms))


def sunk(series: list[int], step: list[int], score: list[float], expected: list[float]) -> bytes:
    """A request of the product's sink."""
    n = len(series)
    blocks = [encode_labels(FLEET.labels[i]) for i in series]
    frame = ScoreFrame(
        pipeline="demo",
        step_ms=STEP_MS,
        series=SeriesColumn.of(blocks, np.zeros(n, np.uint8)),
        row=np.arange(n, dtype=np.uint32),
        timestamp_ms=START_MS + (np.array(step) + 1) * STEP_MS,
        score=np.array(score, np.float32),
        value=np.zeros(n),
        expected=np.repeat(np.array(expected)[:, None], 3, axis=1),
        reason=np.zeros(n, np.uint8),
        flags=np.zeros(n, np.uint8),
        closed_ms=0,
    )
    return pack(ScoreEncoder(("anomaly_score", "yhat")).encode(frame).parts)


def test_scores_are_kept_by_series_and_step_and_forecasts_counted() -> None:
    target = Target(FLEET.labels, STEP_MS, START_MS)
    target.take(sunk([0, 1, 2], [9, 9, 9], [0.1, 0.2, 0.3], [1.0, math.nan, 1.0]))
    target.keep(10, 5)
    target.take(sunk([0, 1], [10, 10], [0.5, 1.5], [1.0, 1.0]))
    target.take(sunk([1, 1, 7], [14, 15, 11], [2.5, 9.0, 0.0], [1.0, 1.0, math.nan]))
    kept = np.full((5, 200), np.nan)
    kept[0, 0], kept[0, 1], kept[4, 1], kept[1, 7] = 0.5, 1.5, 2.5, 0.0
    np.testing.assert_array_equal(target.kept, kept)
    assert (target.scores, target.forecasts) == (8, 6)
    assert target.last[[0, 1, 2, 3, 7]].tolist() == [10, 15, 9, -1, 11]


def test_many_requests_of_many_samples_keep_series_apart() -> None:
    target = Target(FLEET.labels, STEP_MS, START_MS)
    target.keep(0, 600)
    everyone = list(range(200))
    for step in range(0, 600, 60):
        steps = [step + k for k in range(60) for _ in everyone]
        scores = [(i + k) % 97 / 10 for k in range(step, step + 60) for i in everyone]
        target.take(sunk(everyone * 60, steps, scores, [1.0] * len(steps)))
    wanted = (np.arange(600)[:, None] + np.arange(200)) % 97 / 10
    np.testing.assert_allclose(target.kept, wanted, rtol=1e-6)
