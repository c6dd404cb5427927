"""What a unit of work leaves on Kafka, and what a series takes of each role's memory: figures for sizing.

    uv run --all-extras bench/sizes.py [--series 20000] [--steps 96] [--warmup 16]

A process for each role on one Kafka node takes `steps` samples of every series, in requests of 2,000,
with the built-in model and every score written. Bytes are those of each topic's segments on disk, before
replication, over the units that the roles' own metrics count. Memory is that of each role when it is
ready and at the end, and what a series added.

The last line is one JSON object.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import aiohttp
import numpy as np

import load
from parts import kafka
from parts.product import Product
from procs import rss_bytes
from receiver import answering

STEP_S = 60
ROLES = ("receiver", "window", "inference", "sink")
# Topic -> the role and the metric that count its units.
UNITS = {
    "samples": ("receiver", "openanomaly_receiver_samples_published_total"),
    "due": ("window", "openanomaly_window_contexts_total"),
    "forecasts": ("inference", "openanomaly_inference_forecasts_total"),
    "scores": ("window", "openanomaly_window_scores_emitted_total"),
    "ring": ("window", "openanomaly_window_samples_total"),
    "state": ("window", "openanomaly_window_samples_total"),
}
WRITTEN = "openanomaly_sink_scores_written_total"


def topic_bytes(folder: Path) -> dict[str, int]:
    """Bytes of the segments of each of our topics, by what it is for."""
    out = dict.fromkeys(UNITS, 0)
    for segment in folder.glob("*/*.log"):
        topic = segment.parent.name.rpartition("-")[0]
        for name in UNITS:
            if topic == f"openanomaly.{name}" or topic.endswith(f"-{name}-changelog"):
                out[name] += segment.stat().st_size
    return out


async def push(url: str, series: int, steps: int) -> None:
    requests, rng = load.requests(series), np.random.default_rng(0)
    begin_ms = (int(time.time()) // STEP_S - steps) * STEP_S * 1000
    async with aiohttp.ClientSession() as session:
        for step in range(steps):
            bodies = [
                r.body(10 + rng.standard_normal(len(r.records)), begin_ms + step * STEP_S * 1000)
                for r in requests
            ]
            statuses = await load.send(session, f"{url}/api/v1/write", bodies, 2)
            if set(statuses) != {204}:
                raise RuntimeError(f"the receiver answered {statuses}")


def until_done(products: dict[str, Product], scores: int) -> None:
    """Wait until every score is written and every context has its forecast."""
    while True:
        for product in products.values():
            if not product.process.is_running:
                raise RuntimeError(f"a role ended:\n{product.process.tail()}")
        asked = products["window"].total("openanomaly_window_contexts_total")
        had = products["inference"].total("openanomaly_inference_forecasts_total")
        if products["sink"].total(WRITTEN) >= scores and asked == had > 0:
            return
        time.sleep(1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=96)
    parser.add_argument("--warmup", type=int, default=16)
    o = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        kafka.cluster(Path(folder)) as cluster,
        answering(Path(folder)) as port,
    ):
        root = Path(folder)
        config = {
            "broker": {"url": cluster.url},
            "sink": {"url": f"http://127.0.0.1:{port}/api/v1/write", "emit": "all"},
            "pipelines": [{"name": "bench", "step_s": STEP_S, "score": {"warmup": o.warmup}}],
        }
        products = {role: Product(root, command=role, config=config) for role in ROLES}
        try:
            for product in products.values():
                product.start()
            idle = {role: rss_bytes(product.process.pid) for role, product in products.items()}
            asyncio.run(push(products["receiver"].url, o.series, o.steps))
            until_done(products, o.series * (o.steps - o.warmup))
            busy = {role: rss_bytes(product.process.pid) for role, product in products.items()}
            units = {name: products[role].total(metric) for name, (role, metric) in UNITS.items()}
            size = topic_bytes(root / "kafka-1" / "log")
        finally:
            for product in list(products.values())[::-1]:
                product.stop()
    result = {
        "bench": "sizes",
        "series": o.series,
        "steps": o.steps,
        "units": units,
        "bytes_per_unit": {name: round(size[name] / units[name], 1) for name in UNITS},
        "idle_mb": {role: round(value / 1e6) for role, value in idle.items()},
        "busy_mb": {role: round(value / 1e6) for role, value in busy.items()},
        "bytes_per_series": {role: round((busy[role] - idle[role]) / o.series) for role in ROLES},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
