"""Forecasts per second beside Chronos' own pipeline, and how long contexts wait for theirs.

    uv run --all-extras bench/inference.py [--rounds 7] [--seconds 20] [--series 100000]

First on one core, in pairs: the built-in model by our engines, onnxruntime's and torch's, and the
same checkpoint by the pipeline of chronos-forecasting, on the same batches. Every round takes them in
turn, and a ratio is the median of the rounds.

Then the real micro-batcher with the built-in model, in real time, on what windows ask for: a fleet
in two pipelines, one in ten series young, each due at every 16th step, in frames as they follow from
requests of 2,000 samples over 16 partitions. Once with a step of a minute, and once with a step so
short that the engine is busy for 70 % of the time. `wait_s` is from arrival to the cut of the
batch, `answer_s` to the forecast; `padding` is the share of steps that belonged to no context.

The last line is one JSON object; `limit` is the target of `onnx_over_stock`.
"""

import argparse
import asyncio
import json
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from chronos import BaseChronosPipeline
from numpy.typing import NDArray

import load
from openanomaly.adapters.chronos import ChronosAdapter
from openanomaly.adapters.engines import built_in_checkpoint
from openanomaly.adapters.onnx import OnnxAdapter
from openanomaly.core.contexts import Contexts
from openanomaly.core.frames import DueFrame
from openanomaly.core.ports.model_engine import ModelEngine
from openanomaly.core.scoring.levels import LEVELS
from openanomaly.core.series import ids_of, partition_of, stagger_of
from openanomaly.core.services.due_queue import Request
from openanomaly.core.services.micro_batcher import BatchOptions, MicroBatcher
from openanomaly.settings import InferenceSettings

F32 = NDArray[np.float32]
Predict = Callable[[F32], object]

LIMIT = 1.5
CONTEXT, HORIZON = 512, 64
BATCHES = (16, 64, 256, 1024)
LEAST_ROWS = 256  # of one measurement
EVERY, PARTITIONS, REQUEST = 16, 16, 2000
STEP_S, BUSY = 60.0, 0.7
HORIZONS = (64, 24)  # of the two pipelines; the second one has a fifth of the series
MODEL = "chronos-bolt-nano"


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--seconds", type=float, default=20.0, help="of each schedule")
    options.add_argument("--series", type=int, default=100_000)
    o = options.parse_args()
    figures = {"limit": LIMIT, **pairs(o.rounds)}
    engine = OnnxAdapter(built_in_checkpoint() / "model.onnx")
    fleet = Fleet.of(o.series)
    full = asyncio.run(Schedule(engine, fleet, STEP_S).run(o.seconds))
    per_s = rate(engine_on(engine), contexts(1024))
    busy_step_s = o.series / EVERY / (BUSY * per_s)
    busy = asyncio.run(Schedule(engine, fleet, busy_step_s).run(o.seconds))
    print(json.dumps({**figures, "engine_per_s": round(per_s), "schedules": [full, busy]}))


# -- pairs on one core ----------------------------------------------------------------------------


def pairs(rounds: int) -> dict[str, object]:
    """Ratios of series per second on one core, by batch size and over all."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        return _pairs(rounds)
    finally:
        os.sched_setaffinity(0, cores)


def _pairs(rounds: int) -> dict[str, object]:
    checkpoint = str(built_in_checkpoint())
    chronos = ChronosAdapter(checkpoint, device="cpu", threads=1)  # the threads are those of all of torch
    pipeline = BaseChronosPipeline.from_pretrained(checkpoint, dtype=torch.float32)

    def stock(batch: F32) -> object:
        return pipeline.predict_quantiles(
            torch.from_numpy(batch), prediction_length=HORIZON, quantile_levels=list(LEVELS)
        )

    peers: dict[str, Predict] = {
        "stock": stock,
        "onnx": engine_on(OnnxAdapter(built_in_checkpoint() / "model.onnx", threads=1)),
        "chronos": engine_on(chronos),
    }
    by_batch: dict[int, dict[str, float]] = {}
    every: dict[str, list[float]] = {"onnx": [], "chronos": []}
    for size in BATCHES:
        batch = contexts(size)
        for predict in peers.values():
            predict(batch)
        found: dict[str, list[float]] = {name: [] for name in peers}
        for i in range(rounds):
            order = list(peers)[i % 3 :] + list(peers)[: i % 3]
            for name in order:
                found[name].append(rate(peers[name], batch))
        by_batch[size] = {f"{name}_per_s": round(statistics.median(found[name])) for name in peers}
        for name, ratios in every.items():
            mine = [a / b for a, b in zip(found[name], found["stock"], strict=True)]
            ratios += mine
            by_batch[size][f"{name}_over_stock"] = round(statistics.median(mine), 2)
        print(f"batch {size}: {by_batch[size]}", flush=True)
    over = {f"{name}_over_stock": round(statistics.median(ratios), 2) for name, ratios in every.items()}
    return {**over, "by_batch": by_batch}


def engine_on(engine: ModelEngine) -> Predict:
    return lambda batch: engine.predict(batch, HORIZON, LEVELS)


def rate(predict: Predict, batch: F32) -> float:
    """Rows per second."""
    calls = -(-LEAST_ROWS // len(batch))
    start = time.perf_counter()
    for _ in range(calls):
        predict(batch)
    return calls * len(batch) / (time.perf_counter() - start)


def contexts(rows: int, seed: int = 1) -> F32:
    """Waves of several periods with noise, at levels of their own."""
    rng = np.random.default_rng(seed)
    period = rng.choice([24, 60, 96, 288], (rows, 1))
    wave = np.sin(2 * np.pi * (np.arange(CONTEXT) / period + rng.random((rows, 1))))
    noise = rng.normal(0, 0.2, (rows, CONTEXT)) * rng.exponential(1, (rows, 1))
    return (rng.exponential(100, (rows, 1)) + wave + noise).astype(np.float32)


# -- a schedule of due contexts -------------------------------------------------------------------


@dataclass
class Fleet:
    """Series in the order in which they are scraped.

    Attributes:
        shift: (N,) steps by which each is due earlier.
        partition: (N,).
        second: (N,) whether it is of the second pipeline.
        contexts: that series borrow theirs from; one in ten is young.
    """

    shift: NDArray[np.int64]
    partition: NDArray[np.uint32]
    second: NDArray[np.bool_]
    contexts: Contexts

    @classmethod
    def of(cls, series: int) -> "Fleet":
        ids = ids_of(load.labels_of(i, 0) for i in range(series))
        rng = np.random.default_rng(3)
        values = contexts(4096, seed=2)
        for row in np.flatnonzero(rng.random(len(values)) < 0.1):
            values[row, : -rng.integers(64, CONTEXT)] = np.nan
        return cls(
            shift=stagger_of(ids, EVERY),
            partition=partition_of(ids, PARTITIONS),
            second=rng.random(series) < 0.2,
            contexts=Contexts.pack(values),
        )

    def due(self, request: int, bucket: int, closed_ms: int, step_ms: int) -> Iterator[DueFrame]:
        """What follows from the samples of one request, which close `bucket`."""
        first = request * REQUEST
        mine = slice(first, first + REQUEST)
        is_due = (bucket + self.shift[mine]) % EVERY == 0
        for partition in range(PARTITIONS):
            for k, horizon in enumerate(HORIZONS):
                which = is_due & (self.partition[mine] == partition) & (self.second[mine] == k)
                row = first + np.flatnonzero(which)
                if not row.size:
                    continue
                yield DueFrame(
                    partition=partition,
                    block=1,
                    forecaster=k,
                    model=MODEL,
                    horizon=horizon,
                    step_ms=step_ms,
                    row=row.astype(np.uint32),
                    generation=np.ones(row.size, np.uint32),
                    origin=np.full(row.size, bucket, np.int64),
                    context=self.contexts.take(row % len(self.contexts)),
                    closed_ms=closed_ms,
                    useful_until_ms=closed_ms + EVERY * step_ms,
                )


@dataclass
class Seen:
    """What the batcher told, and when rows were answered."""

    wait_s: list[tuple[float, int]] = field(default_factory=list)
    answer_s: list[tuple[float, int]] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    steps: int = 0
    padding: int = 0
    busy_s: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)

    def batch(self, model: str, rows: int, seconds: float, steps: int, padding: int) -> None:
        self.rows.append(rows)
        self.busy_s += seconds
        self.steps += steps
        self.padding += padding

    def waited(self, seconds: float, rows: int) -> None:
        self.wait_s.append((seconds, rows))

    def forecast(self, rows: int) -> None:
        self.counts["forecast"] += rows

    def dropped(self, reason: str, rows: int) -> None:
        self.counts[reason] += rows


class Schedule:
    """The requests of a fleet, evenly over each step, each answered by what is due of it."""

    def __init__(self, engine: ModelEngine, fleet: Fleet, step_s: float) -> None:
        settings = InferenceSettings()
        self._fleet = fleet
        self._step_s = step_s
        self._seen = Seen()
        self._asked = 0
        self._answered = asyncio.Event()
        self._batcher = MicroBatcher(
            {MODEL: engine},
            BatchOptions(settings.max_batch, settings.max_wait_s, settings.queue_limit, LEVELS),
            self._seen,
            clock_s=time.monotonic,
            now_ms=_now_ms,
        )

    async def run(self, seconds: float) -> dict[str, object]:
        requests = -(-len(self._fleet.shift) // REQUEST)
        running = asyncio.create_task(self._batcher.run())
        begin_s = time.monotonic()
        i = 0
        while (at_s := i * self._step_s / requests) < seconds:
            await asyncio.sleep(max(0.0, begin_s + at_s - time.monotonic()))
            bucket, request = divmod(i, requests)
            for frame in self._fleet.due(request, bucket, _now_ms(), int(1000 * self._step_s)):
                self._asked += len(frame.row)
                await self._batcher.submit(frame, self._take(time.monotonic()))
            i += 1
        while self._batcher.waiting:
            self._answered.clear()
            await self._answered.wait()
        took_s = time.monotonic() - begin_s
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return self._figures(took_s)

    def _take(self, begin_s: float) -> Callable[[Request], None]:
        def answered(request: Request) -> None:
            self._seen.answer_s.append((time.monotonic() - begin_s, len(request.ok)))
            self._answered.set()

        return answered

    def _figures(self, took_s: float) -> dict[str, object]:
        seen = self._seen
        assert sum(seen.counts.values()) == self._asked, "every row is forecast or dropped by reason"
        return {
            "step_s": round(self._step_s, 1),
            "rows": self._asked,
            **seen.counts,
            "rows_per_s": round(self._asked / took_s),
            "busy": round(seen.busy_s / took_s, 2),
            "batches": len(seen.rows),
            "rows_a_batch": round(statistics.mean(seen.rows)),
            "wait_s": _percentiles(seen.wait_s),
            "answer_s": _percentiles(seen.answer_s),
            "padding": round(seen.padding / seen.steps, 3),
        }


def _percentiles(weighted: list[tuple[float, int]]) -> dict[str, float]:
    seconds = np.repeat([s for s, _ in weighted], [n for _, n in weighted])
    return {f"p{p}": round(float(np.percentile(seconds, p)), 3) for p in (50, 99)}


def _now_ms() -> int:
    return int(time.time() * 1000)


if __name__ == "__main__":
    main()
