"""What it costs to write a score: encoding alone, and the whole role from the broker to a target's answer.

    uv run bench/sink.py [--series 50000] [--steps 4] [--rounds 3]

The target is a server in another process that reads requests and answers 204; CPU time is the sink's
process alone. Every round encodes the same frames with the full protobuf schema too. The last line is
one JSON object.
"""

import argparse
import asyncio
import dataclasses
import json
import multiprocessing
import multiprocessing.connection
import statistics
import tempfile
import time
from pathlib import Path

import cramjam
import numpy as np
from aiohttp import web
from prometheus_client import CollectorRegistry

from openanomaly.adapters.remote_write.encode import ScoreEncoder, pack
from openanomaly.agents.sink import create_sink
from openanomaly.broker.dead_letter import DeadLetters
from openanomaly.broker.faust_app import BrokerConfig, declare, make_app, publish
from openanomaly.broker.runner import Runner
from openanomaly.broker.topics import topics
from openanomaly.core.frames import ScoreFrame
from openanomaly.core.series import decode_labels, encode_labels
from openanomaly.core.series_column import SeriesColumn, compress_labels
from openanomaly.pb.prometheus import remote_write_1_pb2 as pb1
from openanomaly.settings import SinkSettings
from openanomaly.telemetry import SinkMetrics

PAGE = 1024
START_MS = 1_760_000_000_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--series", type=int, default=50_000)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    columns = [column(range(i, min(i + PAGE, args.series))) for i in range(0, args.series, PAGE)]
    cold, hot, plain = [], [], []
    for step in range(args.rounds):
        frames = [frame(c, step) for c in columns]
        encoder = ScoreEncoder()
        cold.append(per_score(args.series, lambda f=frames, e=encoder: [pack(e.encode(x).parts) for x in f]))
        hot.append(per_score(args.series, lambda f=frames, e=encoder: [pack(e.encode(x).parts) for x in f]))
        plain.append(per_score(args.series, lambda f=frames: [schema(x) for x in f]))
        print(f"encode: new series {cold[-1]:.0f} ns, known {hot[-1]:.0f} ns, full schema {plain[-1]:.0f} ns")
    role = asyncio.run(through_the_role(columns, args))
    figures = {
        "series": args.series,
        "encode_new_ns": round(statistics.median(cold)),
        "encode_known_ns": round(statistics.median(hot)),
        "full_schema_ns": round(statistics.median(plain)),
        "full_schema_over_known": round(statistics.median(p / h for p, h in zip(plain, hot, strict=True)), 2),
        "role_cpu_ns": round(statistics.median(r[0] for r in role)),
        "role_scores_per_second": round(statistics.median(r[1] for r in role)),
    }
    print(json.dumps(figures))


def column(numbers: range) -> SeriesColumn:
    """Series with label blocks of about 200 bytes."""
    blocks = [
        encode_labels(
            (
                ("__name__", "node_network_receive_bytes_total"),
                ("cluster", "prod-eu-1"),
                ("device", f"eth{i % 8}"),
                ("instance", f"10.0.{i // 256 % 256}.{i % 256}:9100"),
                ("job", "node-exporter"),
                ("namespace", "monitoring"),
                ("pod", f"node-exporter-{i:08x}"),
                ("region", "eu-central-1"),
            )
        )
        for i in numbers
    ]
    made = SeriesColumn.of(blocks)
    return dataclasses.replace(made, labels_zstd=compress_labels(made.labels))


def frame(series: SeriesColumn, step: int) -> ScoreFrame:
    n = len(series)
    rng = np.random.default_rng(step)
    return ScoreFrame(
        pipeline="default",
        step_ms=60_000,
        series=series,
        row=np.arange(n, dtype=np.uint32),
        timestamp_ms=np.full(n, START_MS + step * 60_000),
        score=rng.random(n, dtype=np.float32),
        value=rng.random(n),
        expected=rng.random((n, 3)),
        reason=np.zeros(n, np.uint8),
        flags=np.zeros(n, np.uint8),
        closed_ms=START_MS,
    )


def schema(frame: ScoreFrame) -> bytes:
    """The same request the plain way: message by message."""
    request = pb1.WriteRequest()
    for i, row in enumerate(frame.row.tolist()):
        series = request.timeseries.add()
        labels = dict(decode_labels(frame.series.block(row)))
        labels.update({"for": labels["__name__"], "__name__": "anomaly_score", "pipeline": frame.pipeline})
        for name, value in sorted(labels.items()):
            series.labels.add(name=name.encode(), value=value.encode())
        series.samples.add(value=float(frame.score[i]), timestamp=int(frame.timestamp_ms[i]))
    return bytes(cramjam.snappy.compress_raw(request.SerializeToString()))


def per_score(scores: int, work: object) -> float:
    start = time.process_time()
    work()  # type: ignore[operator]
    return 1e9 * (time.process_time() - start) / scores


async def through_the_role(
    columns: list[SeriesColumn], args: argparse.Namespace
) -> list[tuple[float, float]]:
    """CPU nanoseconds per score, and scores per second, of each round."""
    parent, child = multiprocessing.Pipe()
    target = multiprocessing.Process(target=serve, args=(child,), daemon=True)
    target.start()
    out = []
    with tempfile.TemporaryDirectory() as folder:
        config = BrokerConfig(f"embedded://{Path(folder) / 'broker'}", partitions=2)
        names = topics(config.topic_prefix, 2)
        client, app = make_app("ingest", config), make_app("sink", config)
        declare(client, names.scores)
        registry = CollectorRegistry()
        worker = create_sink(
            app,
            SinkSettings(url=f"http://127.0.0.1:{parent.recv()}/write"),
            names,
            SinkMetrics(registry),
            DeadLetters(app, names),
        )
        runner = Runner([client, app])
        await runner.ensure_topics()
        runner.start()
        for number in range(args.rounds + 1):
            steps = range(number * args.steps, (number + 1) * args.steps)
            rows = [(i % 2, None, frame(c, s).encode(True)) for s in steps for i, c in enumerate(columns)]
            goal = (number + 1) * args.steps * args.series
            await publish(client, names.scores.name, rows)
            had, cpu, wall = written(registry), time.process_time(), time.perf_counter()
            while written(registry) < goal:  # noqa: ASYNC110 (nothing tells)
                await asyncio.sleep(0.005)
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            if number:  # the first round meets new series
                out.append((1e9 * cpu / (goal - had), (goal - had) / wall))
                print(f"role: {out[-1][0]:.0f} ns of CPU per score, {out[-1][1]:.0f} scores/s")
        await worker.stop()
        await runner.stop()
    target.terminate()
    target.join()
    return out


def written(registry: CollectorRegistry) -> float:
    return registry.get_sample_value("openanomaly_sink_scores_written_total") or 0.0


def serve(told: multiprocessing.connection.Connection) -> None:
    """A target that takes everything; tells its port."""

    async def write(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=204)

    async def run() -> None:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_post("/write", write)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        told.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(run())


if __name__ == "__main__":
    main()
