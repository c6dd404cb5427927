"""No frame that a room writes is longer than the broker takes, whatever labels, contexts and horizons are."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openanomaly.agents.inference import _records as forecast_records
from openanomaly.broker.topics import MAX_RECORD_BYTES
from openanomaly.core.contexts import Contexts
from openanomaly.core.fields import MOST_BYTES
from openanomaly.core.frames import DueFrame, ForecastFrame, ScoreFrame
from openanomaly.core.scoring.levels import LEVELS
from openanomaly.core.series import encode_labels
from openanomaly.core.services.due_queue import Request
from scores import score_frame
from unit.core.windows import drive

START_MS, STEP_MS = 1_700_000_000_000, 10_000


def noise(seed: int, size: int) -> str:
    return random.Random(seed).randbytes(size // 2 + 1).hex()[:size]


@settings(max_examples=25, deadline=None)
@given(
    series=st.integers(1, 1100),
    label_bytes=st.sampled_from([10, 800, 2_000, 20_000, 327_000]),
    compress=st.booleans(),
)
def test_scores_of_any_labels_fit_and_none_is_lost(series: int, label_bytes: int, compress: bool) -> None:
    series = max(1, min(series, 12_000_000 // label_bytes))
    labels = [(("__name__", "m"), ("x", noise(i, label_bytes)), ("y", str(i))) for i in range(series)]
    frame = score_frame(labels, score=np.arange(series).tolist())
    found = list(frame.records(compress))
    assert max(map(len, found)) <= MOST_BYTES
    decoded = [ScoreFrame.decode(record) for record in found]
    assert np.concatenate([f.score for f in decoded]).tolist() == list(range(series))
    blocks = [f.series.block(row) for f in decoded for row in f.row.tolist()]
    assert blocks == [encode_labels(x) for x in labels]
    if label_bytes == 10:
        assert len(found) == 1


@pytest.mark.parametrize(("context", "series"), [(64, 6000), (512, 1500), (8192, 120)])
def test_contexts_of_any_length_fit(context: int, series: int) -> None:
    partition = drive.partition(
        drive.pipeline(context=context, min_context=2, forecast_every=1), limit=100_000
    )
    (block,) = partition.blocks.values()
    found: list[DueFrame] = []
    for step in range(4):
        rows = [(f"m{i}", START_MS + step * STEP_MS, float(i + step)) for i in range(series)]
        found += partition.put(drive.frame(rows, START_MS), step, START_MS).due
    assert sum(len(f.row) for f in found) >= 2 * series
    assert {f.context.length for f in found} == {context}
    assert max(len(f.encode()) for f in found) <= MOST_BYTES < MAX_RECORD_BYTES
    assert block.counts["due"] == sum(len(f.row) for f in found)


@pytest.mark.parametrize(("horizon", "rows"), [(1, 60_000), (64, 3_000), (1024, 400), (4096, 40)])
def test_forecasts_of_any_horizon_fit(horizon: int, rows: int) -> None:
    row = np.arange(rows, dtype=np.uint32)
    due = DueFrame(
        1, 77, 5, "auto", horizon, 60_000, row, row, row.astype(np.int64),
        Contexts.pack(np.zeros((rows, 2), np.float32)), 0, 1 << 50,
    )  # fmt: skip
    request = Request.of(due, len(LEVELS), lambda request: None)
    request.ok[:] = True
    request.forecast[:] = 0
    found = [(partition, value) for partition, _, value in forecast_records(request) if value is not None]
    assert max(len(value) for _, value in found) <= MOST_BYTES
    decoded = [ForecastFrame.decode(bytes(value)) for _, value in found]
    assert np.concatenate([f.row for f in decoded]).tolist() == row.tolist()
    assert {partition for partition, _ in found} == {1}
