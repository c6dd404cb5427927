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
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

import load
from openanomaly.agents.window_lane import Lane, Raw
from openanomaly.broker.embedded.broker import Broker
from openanomaly.broker.topics import TopicSpec
from openanomaly.core import kernels
from openanomaly.core.frames import DueFrame, ForecastFrame, SampleFrame
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.scoring import LEVELS
from openanomaly.core.series_column import SeriesColumn
from openanomaly.core.windows.admission import Budget
from openanomaly.core.windows.inputs import Item
from openanomaly.core.windows.output import Output
from openanomaly.core.windows.partition import Partition
from openanomaly.core.windows.plan import plan
from openanomaly.core.windows.records import Record

LIMIT = 1_000_000
STEP_MS = 60_000
HISTORY = 160
START_MS = 1_700_000_000_000


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


class Writer:
    """Where the lane's outputs go: the embedded broker, as the worker's own writer would send them."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.changelog_bytes = 0
        self.due: list[DueFrame] = []

    async def _append(self, topic: str, records: Iterable[tuple[bytes | None, bytes]]) -> None:
        await asyncio.gather(*(self._broker.append(topic, 0, key, value) for key, value in records))

    async def state(self, partition: int, records: Sequence[Record]) -> None:
        await self._append("state", records)

    async def ring(self, partition: int, records: Sequence[Record]) -> None:
        self.changelog_bytes += sum(len(r.value) for r in records)
        await self._append("ring", records)

    async def results(self, partition: int, output: Output) -> None:
        self.due += output.due
        frames = [f.encode() for f in output.due] + [f.encode(compress=True) for f in output.scores]
        await self._append("out", ((None, frame) for frame in frames))

    async def reject(self, topic: str, partition: int, item: Item[Raw], error: Exception) -> None:
        raise error

    async def note(self, topic: str, partition: int, item: Item[Raw], error: Exception) -> None:
        raise error

    def took(self, samples: int, waited_s: float) -> None: ...

    async def release(self, partition: int, samples: int, forecasts: int) -> None: ...


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
        await measure(o, partition, Writer(broker))
        await broker.release()


async def measure(o: argparse.Namespace, partition: Partition, writer: Writer) -> None:
    now_ms = START_MS
    crashes: list[BaseException] = []
    # A checkpoint every 60 s of the clock, which is that of the samples: once a step.
    lane = Lane(partition, writer, 60, 10**9, 60, crashes.append, clock=lambda: now_ms / 1000)
    lane.start()

    async def done(samples: int, forecasts: int) -> None:
        while partition.position.samples < samples or partition.position.forecasts < forecasts:
            if crashes:
                raise crashes[0]
            await asyncio.sleep(0.002)
        await lane.written()

    columns, rng = frames(o.series, o.label_bytes, o.rows), np.random.default_rng(0)
    samples_sent = forecasts_sent = forecast_rows = 0
    cpu = waited = 0.0
    scored = 0
    for step in range(HISTORY + o.steps):
        now_ms = START_MS + step * STEP_MS
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
        if step == HISTORY:
            writer.changelog_bytes = forecast_rows = 0
            cpu = waited = 0.0
            scored = partition.counts["scored"]
        began, wall = time.process_time(), time.perf_counter()
        for record in records:
            await lane.offer_samples(samples_sent, Raw(record, now_ms))
            samples_sent += 1
        await done(samples_sent, forecasts_sent)
        cpu += time.process_time() - began
        waited += time.perf_counter() - wall
        answers = [forecast(due) for due in writer.due]
        forecast_rows += sum(len(due.row) for due in writer.due)
        writer.due.clear()
        began = time.process_time()
        for answer in answers:
            await lane.offer_forecasts(forecasts_sent, Raw(answer, now_ms))
            forecasts_sent += 1
        await done(samples_sent, forecasts_sent)
        cpu += time.process_time() - began
    await lane.stop(flush=True)
    assert lane.checkpoints >= o.steps, f"{lane.checkpoints} checkpoints"
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
                "changelog_bytes_per_sample": writer.changelog_bytes / samples,
                "forecasts_per_step": forecast_rows / o.steps,
                "row_state_bytes": partition.row_state_bytes,
            }
        )
    )


if __name__ == "__main__":
    asyncio.run(main())
