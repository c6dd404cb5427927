"""Window worker: samples per CPU-second with scoring and changelog, all steps closing.

    uv run --all-extras bench/windows.py [--series 60000] [--steps 60]

One partition gets one sample per series and frame, and each frame closes the step before, for every
series: the most work a sample can cause. Frames are decoded, gathered, scored, put into the rings;
columns, contexts, scores and checkpoints are encoded and written to the embedded broker with full
durability, waited for as the worker does. Forecasts are in force. CPU is that of the process, the
broker's writer thread included. The last line is one JSON object; `limit` is the target.
"""

import argparse
import asyncio
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np

import load
from openanomaly.broker.embedded.broker import Broker
from openanomaly.broker.topics import TopicSpec
from openanomaly.core import kernels
from openanomaly.core.frames import DueFrame, ForecastFrame, SampleFrame, SeriesColumn
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.scoring import LEVELS
from openanomaly.core.windows.partition import Budget, Output, Partition
from openanomaly.core.windows.plan import plan

LIMIT = 1_000_000
STEP_MS = 60_000
HISTORY = 160


def frames(series: int, label_bytes: int, rows: int) -> list[SeriesColumn]:
    """The series, in the groups in which a receiver's frames hold them."""
    return [
        SeriesColumn.of([load.labels_of(i, label_bytes) for i in range(start, min(start + rows, series))])
        for start in range(0, series, rows)
    ]


def forecast(due: DueFrame) -> bytes:
    """Forecasts that cost nothing: a level per series."""
    level = np.nanmean(due.context.values, axis=1)[:, None, None]
    spread = np.array([-1.6, -0.8, 0, 0.8, 1.6], np.float32)
    flat = (level + spread + np.zeros((1, due.horizon, 1))).astype(np.float32)
    return ForecastFrame.pack(due, np.array(LEVELS, np.float32), flat).encode()


class Worker:
    def __init__(self, broker: Broker, partition: Partition) -> None:
        self.broker, self.partition = broker, partition
        self.changelog_bytes = self.forecasts = 0

    async def write(self, output: Output) -> list[DueFrame]:
        ring = [self.broker.append("ring", 0, r.key, r.value) for r in output.ring]
        state = [self.broker.append("state", 0, r.key, r.value) for r in output.catalogue]
        self.changelog_bytes += sum(len(r.value) for r in output.ring)
        await asyncio.gather(*ring, *state)
        due = [self.broker.append("out", 0, None, f.encode()) for f in output.due]
        scores = [self.broker.append("out", 0, None, f.encode(compress=True)) for f in output.scores]
        await asyncio.gather(*due, *scores)
        return output.due

    async def checkpoint(self) -> None:
        saved = self.partition.checkpoint(0)
        await asyncio.gather(*(self.broker.append("state", 0, r.key, r.value) for r in saved.records))


async def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--series", type=int, default=60_000)
    options.add_argument("--steps", type=int, default=60)
    options.add_argument("--label-bytes", type=int, default=200)
    options.add_argument("--rows", type=int, default=8192, help="series of a frame")
    o = options.parse_args()
    kernels.warm_up()
    with tempfile.TemporaryDirectory() as folder:
        broker = Broker.open(Path(folder), "FULL", 20 << 30)
        for spec in (
            TopicSpec("ring", 1, 3600, drop_consumed=False),
            TopicSpec("state", 1, None, compact=True, drop_consumed=False),
            TopicSpec("out", 1, 3600),
        ):
            await broker.create(spec)
        partition = Partition(0, plan([Pipeline(name="bench", model="statistical")]), Budget(10**8))
        partition.start()
        partition.emit = "all" if o.series <= 20_000 else "episodes"  # as the product chooses
        await measure(o, Worker(broker, partition))
        await broker.release()


async def measure(o: argparse.Namespace, worker: Worker) -> None:
    columns, rng = frames(o.series, o.label_bytes, o.rows), np.random.default_rng(0)
    partition, offset, forecasts = worker.partition, 0, 0
    cpu = waited = 0.0
    scored = 0
    for step in range(HISTORY + o.steps):
        now_ms = 1_700_000_000_000 + step * STEP_MS
        records = [
            SampleFrame(
                c,
                np.arange(len(c), dtype=np.uint32),
                np.full(len(c), now_ms, np.int64),
                rng.standard_normal(len(c)),
                now_ms,
            ).encode()
            for c in columns
        ]
        is_measured = step >= HISTORY
        if step == HISTORY:
            worker.changelog_bytes = worker.forecasts = 0
            scored = partition.counts["scored"]
        began, wall = cpu_s(), time.perf_counter()
        due: list[DueFrame] = []
        for record in records:
            output = partition.put(SampleFrame.decode(record), offset, now_ms)
            offset += 1
            due += await worker.write(output)
        if is_measured:
            cpu += cpu_s() - began
            waited += time.perf_counter() - wall
        answers = [(forecast(d), len(d.row)) for d in due]
        began = cpu_s()
        for answer, rows in answers:
            partition.forecast(ForecastFrame.decode(answer), forecasts, now_ms)
            forecasts += 1
            worker.forecasts += rows
        await worker.checkpoint()
        if is_measured:
            cpu += cpu_s() - began
    samples = o.series * o.steps
    scored = partition.counts["scored"] - scored
    assert scored == samples, f"{scored} scores of {samples} steps"
    print(
        json.dumps(
            {
                "bench": "windows",
                "series": o.series,
                "samples": samples,
                "samples_per_cpu_s": samples / cpu,
                "limit": LIMIT,
                "ratio_to_limit": samples / cpu / LIMIT,
                "samples_per_wall_s": samples / waited,
                "changelog_bytes_per_sample": worker.changelog_bytes / samples,
                "forecasts_per_step": worker.forecasts / o.steps,
                "row_state_bytes": partition.row_state_bytes,
            }
        )
    )


def cpu_s() -> float:
    times = os.times()
    return times.user + times.system


if __name__ == "__main__":
    asyncio.run(main())
