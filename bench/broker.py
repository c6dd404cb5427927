"""The embedded broker beside Kafka: the same records through the same clients, on the same disk.

    uv run --all-extras bench/broker.py [--rounds 3] [--seconds 3]

Both are used as the product uses them: `publish` of an ingest app with acks of all, and an agent of
a sink app that reads frames by its ledger. The embedded broker syncs every commit to disk
(`synchronous=FULL`); Kafka is one node with its defaults, which leave that to the operating system.
CPU is that of this process and, for Kafka, of its JVM. Every round takes both in turn; the last line
is one JSON object whose ratios are the medians of the rounds' (above 1: the embedded broker is better).
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from openanomaly.broker.faust_app import App, BrokerConfig, declare, make_app, publish
from openanomaly.broker.ledger import Ledger
from openanomaly.broker.runner import Runner
from openanomaly.broker.topics import TopicSpec
from parts import kafka

PARTITIONS = 16
SMALL, FRAME = 100, 64 << 10
INFLIGHT = 64
"""Frames that wait for their confirmation at a time: what a busy receiver has open."""
Figures = dict[str, float]


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Side:
    """One broker with a writing and a reading app."""

    def __init__(self, config: BrokerConfig, pids: list[int]) -> None:
        self.pids = pids
        self.topic = TopicSpec("bench.frames", PARTITIONS, 3600.0, drop_consumed=False)
        self.writer: App = make_app("ingest", config)
        declare(self.writer, self.topic)
        self.reader: App = make_app("sink", config)
        self.read = self.wanted = 0
        self.reached = asyncio.Event()
        ledger = Ledger(self.reader, self.topic.name)

        async def take(stream: object) -> None:
            async for event in stream.noack().events():  # type: ignore[attr-defined]
                if ledger.receive(event):
                    self.read += 1
                    ledger.done(event.message.partition, event.message.offset)
                    if self.read == self.wanted:
                        self.reached.set()

        self.reader.agent(declare(self.reader, self.topic), name="bench.read")(take)
        self.runners = [Runner([self.writer]), Runner([self.reader])]

    async def start(self) -> None:
        await self.runners[0].ensure_topics()
        self.runners[0].start()

    async def stop(self) -> None:
        for runner in self.runners[::-1]:
            await runner.stop()

    async def _reach(self, wanted: int) -> None:
        if self.read < wanted:
            self.wanted = wanted
            self.reached.clear()
            await self.reached.wait()

    def cpu_s(self) -> float:
        return sum(cpu_s(pid) for pid in self.pids)

    async def waits(self, size: int, seconds: float) -> list[float]:
        """Seconds until one record is confirmed, one after another."""
        value, out, end = os.urandom(size), [], time.perf_counter() + seconds
        while (start := time.perf_counter()) < end:
            await publish(self.writer, self.topic.name, [(len(out) % PARTITIONS, None, value)])
            out.append(time.perf_counter() - start)
        return out

    async def writes(self, seconds: float) -> tuple[int, float, float]:
        """Frames written with `INFLIGHT` open, the wall seconds and the CPU-seconds."""
        value, written = os.urandom(FRAME), 0
        cpu, start = self.cpu_s(), time.perf_counter()

        async def keep_on(partition: int) -> None:
            nonlocal written
            while time.perf_counter() - start < seconds:
                await publish(self.writer, self.topic.name, [(partition % PARTITIONS, None, value)])
                written += 1

        await asyncio.gather(*(keep_on(i) for i in range(INFLIGHT)))
        return written, time.perf_counter() - start, self.cpu_s() - cpu

    async def reads(self, wanted: int) -> tuple[float, float]:
        """Wall and CPU seconds until the agent has read everything that was written."""
        await self.runners[1].ensure_topics()
        self.runners[1].start()
        # From the first record on: joining a group is not reading.
        async with asyncio.timeout(300):
            await self._reach(1)
            cpu, start, first = self.cpu_s(), time.perf_counter(), self.read
            await self._reach(wanted)
        share = wanted / max(1, wanted - first)
        return (time.perf_counter() - start) * share, (self.cpu_s() - cpu) * share


async def measure(side: Side, seconds: float) -> Figures:
    await side.start()
    try:
        small = await side.waits(SMALL, seconds)
        frame = await side.waits(FRAME, seconds)
        written, wall, cpu = await side.writes(seconds)
        total = len(small) + len(frame) + written
        read_wall, read_cpu = await side.reads(total)
        megabytes = (len(frame) + written) * FRAME / 1e6
        return {
            "small_p50_ms": 1e3 * statistics.median(small),
            "small_p99_ms": 1e3 * statistics.quantiles(small, n=100)[98],
            "frame_p50_ms": 1e3 * statistics.median(frame),
            "frame_p99_ms": 1e3 * statistics.quantiles(frame, n=100)[98],
            "write_mb_per_s": written * FRAME / 1e6 / wall,
            "write_mb_per_cpu_s": written * FRAME / 1e6 / cpu,
            "read_mb_per_s": megabytes / read_wall,
            "read_mb_per_cpu_s": megabytes / read_cpu,
        }
    finally:
        await side.stop()


def in_turn(rounds: int, seconds: float) -> tuple[list[Figures], list[Figures]]:
    embedded, real = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            config = BrokerConfig(f"embedded://{root / 'embedded'}", partitions=PARTITIONS)
            embedded.append(asyncio.run(measure(Side(config, [os.getpid()]), seconds)))
            with kafka.cluster(root) as cluster:
                config = BrokerConfig(cluster.url, partitions=PARTITIONS)
                pids = [os.getpid(), cluster.pid(1)]
                real.append(asyncio.run(measure(Side(config, pids), seconds)))
        for name, figures in (("embedded", embedded[-1]), ("kafka", real[-1])):
            print(name, json.dumps({key: round(value, 2) for key, value in figures.items()}), flush=True)
    return embedded, real


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    options = parser.parse_args()
    embedded, real = in_turn(options.rounds, options.seconds)

    def median(key: str, of: Callable[[float, float], float]) -> float:
        return round(statistics.median(of(e[key], k[key]) for e, k in zip(embedded, real, strict=True)), 2)

    ratios = {
        key: median(key, (lambda e, k: k / e) if key.endswith("_ms") else (lambda e, k: e / k))
        for key in embedded[0]
    }
    print(
        json.dumps(
            {
                "bench": "broker",
                "embedded": {key: median(key, lambda e, k: e) for key in ratios},
                "kafka": {key: median(key, lambda e, k: k) for key in ratios},
                "ratio": ratios,
            }
        )
    )


if __name__ == "__main__":
    main()
