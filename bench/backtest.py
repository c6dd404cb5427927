"""Backtest: series-steps per second, beside the stream's code on the same samples.

    uv run --extra fast bench/backtest.py [--series 100] [--steps 20000] [--stream-steps 600]

Forecasts cost next to nothing here: the model's time is the same on both ways, and is measured by
bench/inference.py. The stream's figure is that of windows, scores and forecasts without a broker, one
frame a step (bench/windows.py has it with one). The last line is one JSON object; `ratio` is how many
times the stream's rate the backtest has.
"""

import argparse
import json
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from openanomaly.core import kernels
from openanomaly.core.frames import SampleFrame
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.recording import RecordedSeries
from openanomaly.core.series import encode_labels
from openanomaly.core.series_column import SeriesColumn
from openanomaly.core.services.backtest import Backtest
from openanomaly.core.services.local import LocalScoring

STEP_MS = 60_000
START_MS = 1_700_000_040_000
F32 = NDArray[np.float32]


class Level:
    """Forecasts that cost nothing: the last value, and a spread."""

    name, device, max_context, horizon_step, fixed_shapes = "level", "cpu", 512, 1, False

    def predict(self, context: F32, horizon: int, quantiles: Sequence[float]) -> F32:
        spread = np.linspace(-1.6, 1.6, len(quantiles), dtype=np.float32)
        level = np.nan_to_num(context[:, -1])[:, None, None]
        return np.broadcast_to(level + spread, (len(context), horizon, len(quantiles)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--series", type=int, default=100)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--stream-steps", type=int, default=600, help="of them that the stream gets, timed")
    args = parser.parse_args()
    kernels.warm_up()
    rng = np.random.default_rng(0)
    times = START_MS + STEP_MS * np.arange(args.steps)
    values = rng.standard_normal((args.series, args.steps)).cumsum(axis=1)
    labels = [(("__name__", f"series_{i}"),) for i in range(args.series)]
    recording = [RecordedSeries(of, times, v) for of, v in zip(labels, values, strict=True)]
    pipeline, engines = Pipeline(name="bench"), {"auto": Level()}

    test = Backtest(pipeline, engines, recording)
    began, cpu = time.perf_counter(), time.process_time()
    scored = sum(chunk.series.size for chunk in test.run())
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    assert scored == args.series * args.steps, f"{scored} steps of {args.series * args.steps}"

    stream = LocalScoring([pipeline], engines, args.series)
    column = SeriesColumn.of([encode_labels(of) for of in labels])
    rows = np.arange(args.series, dtype=np.uint32)
    begin = min(1000, args.steps - args.stream_steps - 1)  # past warm-up
    for step in range(begin + args.stream_steps):
        if step == begin:
            stream_began, stream_cpu = time.perf_counter(), time.process_time()
        at = np.full(args.series, times[step])
        stream.put(SampleFrame(column, rows, at, values[:, step].copy(), int(times[step])), int(times[step]))
    stream_seconds = time.perf_counter() - stream_began
    stream_cpu_s = time.process_time() - stream_cpu
    timed = args.series * args.stream_steps
    rate, stream_rate = scored / cpu_s, timed / stream_cpu_s
    print(
        json.dumps(
            {
                "bench": "backtest",
                "series": args.series,
                "steps": args.steps,
                "series_steps_per_cpu_s": rate,
                "series_steps_per_s": scored / seconds,
                "stream_series_steps_per_cpu_s": stream_rate,
                "stream_series_steps_per_s": timed / stream_seconds,
                "ratio": rate / stream_rate,
                "compiled": kernels.WINDOWS.ready(),
            }
        )
    )


if __name__ == "__main__":
    main()
