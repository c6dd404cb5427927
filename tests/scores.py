"""Score frames for tests, and what a request holds as plain values."""

from collections.abc import Sequence

import numpy as np
import snappy

from openanomaly.core.frames import ScoreFlag, ScoreFrame
from openanomaly.core.series import Labels, encode_labels
from openanomaly.core.series_column import SeriesColumn
from openanomaly.pb.prometheus import remote_write_1_pb2 as pb1

NOW_MS = 1_700_000_040_000
Sample = tuple[Labels, int, float]


def score_frame(
    labels: Sequence[Labels],
    score: Sequence[float] | None = None,
    timestamp_ms: Sequence[int] | None = None,
    flags: Sequence[int] | None = None,
    expected: Sequence[Sequence[float]] | None = None,
    row: Sequence[int] | None = None,
    pipeline: str = "default",
    closed_ms: int = NOW_MS,
) -> ScoreFrame:
    """One judged step of each series (or of the series in `row`), as if just read from the broker.

    The value of step i is i, its median, lower and upper edge i + 0.25, i - 1 and i + 1.
    """
    at = np.arange(len(labels)) if row is None else np.array(row)
    i = np.arange(len(at), dtype=np.float64)
    band = np.stack([i + 0.25, i - 1, i + 1], axis=1) if expected is None else np.array(expected, float)
    frame = ScoreFrame(
        pipeline=pipeline,
        step_ms=60_000,
        series=SeriesColumn.of([encode_labels(x) for x in labels]),
        row=at.astype(np.uint32),
        timestamp_ms=np.array([NOW_MS] * len(at) if timestamp_ms is None else timestamp_ms, np.int64),
        score=np.array(i / 8 if score is None else score, np.float32),
        value=i,
        expected=band.reshape(len(at), 3),
        reason=np.zeros(len(at), np.uint8),
        flags=np.array([0] * len(at) if flags is None else flags, np.uint8),
        closed_ms=closed_ms,
    )
    return ScoreFrame.decode(frame.encode(compress=True))


MARKER = ScoreFlag.END | ScoreFlag.SILENT


def samples(body: bytes) -> list[Sample]:
    """Every sample of a request, in its order; labels must be sorted, and none empty."""
    request = pb1.WriteRequest.FromString(snappy.uncompress(body))
    out = []
    for series in request.timeseries:
        labels = tuple((label.name.decode(), label.value.decode()) for label in series.labels)
        names = [name for name, _ in labels]
        assert names == sorted(set(names)), names
        assert all(name and value for name, value in labels), labels
        out += [(labels, sample.timestamp, sample.value) for sample in series.samples]
    return out
