"""What scoring costs per series and step, beside the same rules written the plain way.

    uv run bench/scoring.py [--rows 20000] [--steps 288] [--rounds 3]

One core. Every round times both on the same values and forecasts, in turn, over whole blocks of
steps, so that what happens once per block is in it. The last line is one JSON object.
"""

import argparse
import json
import os
import statistics
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray

from openanomaly.core import kernels
from openanomaly.core.pipelines.pipeline import ScoreOptions
from openanomaly.core.scoring.levels import Z
from openanomaly.core.scoring.scorer import Scorer
from scoring_reference import ReferenceScorer

AGED = 3 * 144  # steps before the clock starts: past warm-up, every list in use


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=288)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    kernels.warm_up()
    steps = Steps(args.rows)
    scorer = Scorer(ScoreOptions())
    state, plain = scorer.allocate(args.rows), ReferenceScorer(args.rows)
    everyone = np.arange(args.rows)
    some = np.sort(np.random.default_rng(1).choice(args.rows, args.rows // 2, replace=False))
    bucket = 0
    for _ in range(AGED):
        scorer.update(state, slice(0, args.rows), np.full(args.rows, bucket), *steps.at(bucket))
        if bucket < AGED // 2:
            plain.update(everyone, *steps.at(bucket))
        bucket += 1
    dense, sparse, peer = [], [], []
    for _ in range(args.rounds):
        for times, rows in ((dense, slice(0, args.rows)), (sparse, some)):
            spent = 0.0
            for _ in range(args.steps):
                y, band = steps.at(bucket)
                n = len(y[rows])
                part = np.full(n, bucket), y[rows], band[rows]
                start = time.perf_counter()
                scorer.update(state, rows, *part)
                spent += time.perf_counter() - start
                bucket += 1
            times.append(1e9 * spent / args.steps / n)
        spent = 0.0
        for i in range(args.steps // 4):
            y, band = steps.at(i)
            start = time.perf_counter()
            plain.update(everyone, y, band)
            spent += time.perf_counter() - start
        peer.append(1e9 * spent / (args.steps // 4) / args.rows)
        print(f"dense {dense[-1]:.0f} ns, sparse {sparse[-1]:.0f} ns, plain {peer[-1]:.0f} ns")
    hot = sum(f.row_bytes for f in scorer.fields if f.hot)
    total = sum(f.row_bytes for f in scorer.fields)
    figures = {
        "rows": args.rows,
        "dense_ns": round(statistics.median(dense), 1),
        "sparse_ns": round(statistics.median(sparse), 1),
        "plain_ns": round(statistics.median(peer), 1),
        "plain_over_dense": round(statistics.median(p / d for p, d in zip(peer, dense, strict=True)), 2),
        "plain_over_sparse": round(statistics.median(p / s for p, s in zip(peer, sparse, strict=True)), 2),
        "state_bytes": total,
        "state_bytes_hot": hot,
        "state_bytes_cold": total - hot,
    }
    print(json.dumps(figures))


class Steps:
    """Values and forecasts that repeat: making them must not be in the figures."""

    def __init__(self, rows: int, kinds: int = 8) -> None:
        rng = np.random.default_rng(0)
        self._y = rng.standard_normal((kinds, rows)) + rng.integers(0, 1000, rows)
        self._band = (np.round(self._y[:, :, None] / 10) * 10 + np.array(Z)).astype(np.float64)

    def at(self, step: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        k = step * 5 % len(self._y)
        return self._y[k], self._band[k]


if __name__ == "__main__":
    main()
