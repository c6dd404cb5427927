"""What the status page costs per score, and per answer.

    uv run bench/status.py [--series 100000] [--steps 20]

Frames of 2,048 normal series, as a window worker writes them; then a step in which all of them are
anomalous at once. The last line is one JSON object.
"""

import argparse
import json
import time
from dataclasses import replace

import numpy as np

from openanomaly.core.anomalies.board import Board, Limits
from openanomaly.core.anomalies.query import Query
from openanomaly.core.anomalies.report import report
from openanomaly.core.frames import ScoreFlag, ScoreFrame
from openanomaly.core.series import encode_labels
from openanomaly.core.series_column import SeriesColumn

ROWS, STEP_MS, NOW_MS = 2048, 60_000, 1_700_000_040_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--series", type=int, default=100_000)
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    records = [record(n) for n in range(-(-args.series // ROWS))]
    scores = len(records) * ROWS
    board = Board(Limits(series=scores))

    def run(step: int, flags: int = 0) -> float:
        """ns per score of one step of all series."""
        began_s = time.process_time()
        for value in records:
            frame = ScoreFrame.decode(value)
            at_ms = NOW_MS + step * STEP_MS
            moved = replace(
                frame,
                timestamp_ms=np.full(ROWS, at_ms),
                flags=np.full(ROWS, flags, np.uint8),
                closed_ms=at_ms,
            )
            board.take(moved, at_ms)
        return (time.process_time() - began_s) / scores * 1e9

    first = run(0)
    normal = sorted(run(n) for n in range(1, args.steps))
    began = run(args.steps, ScoreFlag.START | ScoreFlag.OPEN)
    began_s = time.process_time()
    answer = json.dumps(report(board, Query(limit=20, steps=90)), allow_nan=False)
    result = {
        "series": scores,
        "first_ns": round(first),
        "normal_ns": round(normal[len(normal) // 2]),
        "all_anomalous_ns": round(began),
        "answer_ms": round((time.process_time() - began_s) * 1000, 1),
        "answer_kib": len(answer) >> 10,
        "series_bytes": board.known.row_bytes,
        "anomaly_bytes": board.tracks.row_bytes,
    }
    print(json.dumps(result))


def record(number: int) -> bytes:
    """A page of series, as it is on the broker."""
    labels = [
        (("__name__", "node_load1"), ("instance", f"host-{number}-{i}:9100"), ("job", f"job-{i % 50}"))
        for i in range(ROWS)
    ]
    rng = np.random.default_rng(number)
    return ScoreFrame(
        pipeline="default",
        step_ms=STEP_MS,
        series=SeriesColumn.of([encode_labels(x) for x in labels]),
        row=np.arange(ROWS, dtype=np.uint32),
        timestamp_ms=np.full(ROWS, NOW_MS),
        score=rng.random(ROWS, np.float32),
        value=rng.random(ROWS),
        expected=rng.random((ROWS, 3)),
        reason=np.zeros(ROWS, np.uint8),
        flags=np.zeros(ROWS, np.uint8),
        closed_ms=NOW_MS,
    ).encode(compress=True)


if __name__ == "__main__":
    main()
