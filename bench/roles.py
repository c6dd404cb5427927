"""Each role over real Kafka and over the embedded broker: what a CPU-second does, how late a score is.

    uv run --all-extras bench/roles.py [--series 20000] [--steps 240] [--live 20] [--rounds 3]

First the roles one after another, each a process of its own with nothing else to wait for: the receiver
takes `steps` samples of every series over HTTP, the window worker what the receiver wrote, inference the
contexts and the sink the scores that the window worker wrote. So forecasts are not in force yet when steps
are judged (`bench/windows.py` has them). CPU is that of the role's process between the first and the
last unit that its own metrics show; Kafka is one node with its defaults, its CPU given apart.

Then the delay: every series gets two samples a step of `--step` seconds in real time, in a process for
each role on Kafka and in `openanomaly run` embedded. `step_end_to_score_s` is from the end of a step (the
first sample of the next one closes it), `sample_to_score_s` from the sending of its last sample.

Rounds take the two brokers in turn; the last line is one JSON object, with the medians of the rounds.
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import aiohttp
import numpy as np
import snappy
from aiohttp import web

import load
from openanomaly.pb.prometheus import remote_write_1_pb2 as pb
from parts import kafka
from parts.product import Product
from procs import cpu_s, free_port
from receiver import answering

STEP_S = 60
QUIET_S = 4.0
"""So long without a further unit, a role is done."""
UNITS = {
    "receiver": ("samples", "openanomaly_receiver_samples_published_total"),
    "window": ("samples", "openanomaly_window_samples_total"),
    "inference": ("forecasts", "openanomaly_inference_forecasts_total"),
    "sink": ("scores", "openanomaly_sink_scores_written_total"),
}
Figures = dict[str, float]


@dataclass(frozen=True)
class Broker:
    """Where the roles of one round meet."""

    name: str
    url: str
    root: Path
    pids: list[int]

    def product(self, command: str, pipeline: dict[str, object], target: str) -> Product:
        config = {
            "broker": {"url": self.url},
            "pipelines": [{"name": "bench", **pipeline}],
            "sink": {"emit": "all", "url": target},
        }
        return Product(self.root, command=command, config=config)


@contextlib.contextmanager
def broker(name: str) -> Iterator[Broker]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if name == "embedded":
            yield Broker(name, f"embedded://{root}/broker", root, [])
            return
        with kafka.cluster(root) as cluster:
            yield Broker(name, cluster.url, root, [cluster.pid(1)])


# -- what a CPU-second does ------------------------------------------------------------------------


@dataclass(frozen=True)
class Mark:
    """How far a role was at a moment."""

    units: float
    at_s: float
    cpu_s: float
    broker_cpu_s: float


def marks(product: Product, role: str, pids: list[int]) -> Iterator[Mark]:
    """Ends once the role has been quiet for a while after its first units."""
    name, changed_s, seen = UNITS[role][1], time.monotonic(), 0.0
    while not seen or time.monotonic() - changed_s < QUIET_S:
        if not product.process.is_running:
            raise RuntimeError(f"{role} ended:\n{product.process.tail()}")
        mark = Mark(
            product.total(name), time.perf_counter(), cpu_s(product.process.pid), sum(map(cpu_s, pids))
        )
        if mark.units > seen:
            seen, changed_s = mark.units, time.monotonic()
            yield mark
        time.sleep(0.1)


def one_role(at: Broker, role: str, target: str, feed: Callable[[str], None] | None = None) -> Figures:
    """Units per second and per CPU-second of a role that has everything before it."""
    product = at.product(role, {"step_s": STEP_S}, target)
    try:
        product.start()
        if feed is not None:
            began = Mark(0, time.perf_counter(), cpu_s(product.process.pid), sum(map(cpu_s, at.pids)))
            feed(product.url)
            found = [began, *marks(product, role, at.pids)]
        else:
            found = list(marks(product, role, at.pids))
    finally:
        product.stop()
    first, last = found[0], found[-1]
    units = last.units - first.units
    return {
        f"{role}_{UNITS[role][0]}": last.units,
        f"{role}_per_s": units / (last.at_s - first.at_s),
        f"{role}_per_cpu_s": units / (last.cpu_s - first.cpu_s),
        f"{role}_broker_cpu_share": (last.broker_cpu_s - first.broker_cpu_s) / (last.cpu_s - first.cpu_s),
    }


def throughput(at: Broker, series: int, steps: int) -> Figures:
    requests = load.requests(series)
    begin_ms = (int(time.time()) // STEP_S - steps) * STEP_S * 1000
    rng = np.random.default_rng(0)
    bodies = [
        r.body(10 + rng.standard_normal(len(r.records)), begin_ms + step * STEP_S * 1000)
        for step in range(steps)
        for r in requests
    ]

    async def push(url: str) -> None:
        async with aiohttp.ClientSession() as session:
            statuses = await load.send(session, f"{url}/api/v1/write", bodies, 8)
        if set(statuses) != {204}:
            raise RuntimeError(f"the receiver answered {statuses}")

    out: Figures = {}
    with answering(at.root) as port:
        target = f"http://127.0.0.1:{port}/api/v1/write"
        for role in UNITS:
            feed = (lambda url: asyncio.run(push(url))) if role == "receiver" else None
            out |= one_role(at, role, target, feed)
            print(f"{at.name}: {role}: {out[f'{role}_per_cpu_s']:,.0f} {UNITS[role][0]}/CPU-s", flush=True)
    if out["window_samples"] != series * steps:
        raise RuntimeError(f"{out['window_samples']:.0f} of {series * steps} samples came to windows")
    return out


# -- how late a score is ---------------------------------------------------------------------------


@dataclass
class Arrivals:
    """A target that notes how many scores of which step came when."""

    port: int = field(default_factory=free_port)
    found: list[tuple[int, float, int]] = field(default_factory=list)

    async def write(self, request: web.Request) -> web.Response:
        body, now = await request.read(), time.time()
        message = pb.WriteRequest.FromString(snappy.uncompress(body))
        times = [sample.timestamp for series in message.timeseries for sample in series.samples]
        self.found += [
            (int(t), now, int(n)) for t, n in zip(*np.unique(times, return_counts=True), strict=True)
        ]
        return web.Response(status=204)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        app = web.Application(client_max_size=1 << 28)
        app.router.add_post("/api/v1/write", self.write)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        yield
        await runner.cleanup()


async def delays(at: Broker, o: argparse.Namespace) -> Figures:
    arrivals, step_ms = Arrivals(), o.step * 1000
    commands = ["run"] if at.name == "embedded" else list(UNITS)
    # Of groups there would be scores too, which are not counted.
    pipeline: dict[str, object] = {"step_s": o.step, "lateness_s": 1, "group_by": []}
    products = [at.product(x, pipeline, f"http://127.0.0.1:{arrivals.port}/api/v1/write") for x in commands]
    requests, rng = load.requests(o.series), np.random.default_rng(0)
    async with arrivals.running(), aiohttp.ClientSession() as session:
        try:
            for product in products:
                await asyncio.to_thread(product.start)

            async def scrape(at_ms: int) -> float:
                bodies = [r.body(10 + rng.standard_normal(len(r.records)), at_ms) for r in requests]
                sent_s = time.time()
                await load.send(session, f"{products[0].url}/api/v1/write", bodies, 2)
                return sent_s

            history, past = o.history, 0
            first = (int(time.time() * 1000) // step_ms - history) * step_ms
            while first + (past + 1) * step_ms < time.time() * 1000:
                await scrape(first + past * step_ms + 100)
                past += 1
            # The steps before the first that is measured let the backlog of the history go.
            begin = int(time.time()) // o.step + 1
            sent_s: dict[int, float] = {}
            # One more than is measured: a step is closed by the first sample of the next, or a while later.
            for step in range(begin, begin + o.settle + o.live + 1):
                for half in (0.0, 0.5):
                    await asyncio.sleep(max(0.0, (step + half) * o.step - time.time()))
                    sent_s[(step + 1) * step_ms] = await scrape(int((step + half) * step_ms) + 1)
            await asyncio.sleep(o.step + 5)
        finally:
            for product in products[::-1]:
                await asyncio.to_thread(product.stop)
    wanted = range((begin + o.settle + 1) * step_ms, (begin + o.settle + o.live + 1) * step_ms, step_ms)
    found = [x for x in arrivals.found if x[0] in wanted]
    count = np.array([n for _, _, n in found])
    if count.sum() != o.series * o.live:
        raise RuntimeError(f"{count.sum()} of {o.series * o.live} scores came")
    last = {t: max(arrived for at_ms, arrived, _ in found if at_ms == t) - t / 1000 for t in wanted}
    print(f"{at.name}: s from each step's end to its last score:", *(f"{s:.2f}" for s in last.values()))
    ends = np.repeat([arrived - t / 1000 for t, arrived, _ in found], count)
    samples = np.repeat([arrived - sent_s[t] for t, arrived, _ in found], count)
    return {
        "step_end_to_score_s_p50": float(np.quantile(ends, 0.5)),
        "step_end_to_score_s_p99": float(np.quantile(ends, 0.99)),
        "sample_to_score_s_p50": float(np.quantile(samples, 0.5)),
        "sample_to_score_s_p99": float(np.quantile(samples, 0.99)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--series", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=240, help="samples of a series, for throughput")
    parser.add_argument("--step", type=int, default=10, help="seconds of a step, for the delay")
    parser.add_argument("--history", type=int, default=160, help="steps before the present, for the delay")
    parser.add_argument("--settle", type=int, default=3, help="live steps before those measured")
    parser.add_argument("--live", type=int, default=20, help="live steps measured")
    parser.add_argument("--rounds", type=int, default=3)
    o = parser.parse_args()
    rounds: dict[str, list[Figures]] = {"embedded": [], "kafka": []}
    for _ in range(o.rounds):
        for name, figures in rounds.items():
            with broker(name) as at:
                figures.append(throughput(at, o.series, o.steps))
            with broker(name) as at:
                figures[-1] |= asyncio.run(delays(at, o))
            print(name, json.dumps({key: round(value, 2) for key, value in figures[-1].items()}), flush=True)
    result = {
        name: {key: round(statistics.median(f[key] for f in figures), 3) for key in figures[0]}
        for name, figures in rounds.items()
    }
    ratios = {
        f"{role}_embedded_over_kafka": round(
            statistics.median(
                a[f"{role}_per_cpu_s"] / b[f"{role}_per_cpu_s"]
                for a, b in zip(rounds["embedded"], rounds["kafka"], strict=True)
            ),
            3,
        )
        for role in UNITS
    }
    print(json.dumps({"bench": "roles", "series": o.series, "rounds": o.rounds, **result, **ratios}))


if __name__ == "__main__":
    main()
