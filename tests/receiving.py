"""A real receiver for tests: our handler behind a real aiohttp server, on the real embedded broker."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import numpy as np
from aiohttp import web
from prometheus_client import CollectorRegistry

from messages import HEADERS, Series, encode, packed
from openanomaly.agents.ingest import Receiver, create_receiver
from openanomaly.broker.faust_app import App, BrokerConfig, make_app
from openanomaly.broker.topics import topics
from openanomaly.core.frames import SampleFrame
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.series import Labels, decode_labels
from openanomaly.settings import ReceiverSettings
from openanomaly.telemetry import ReceiverMetrics

PARTITIONS = 4
EVERYTHING = (Pipeline(name="all", selector='{__name__!=""}'),)


@dataclass(frozen=True)
class Answer:
    status: int
    text: str
    headers: Mapping[str, str]

    @property
    def written(self) -> tuple[int, ...] | None:
        """Samples, histograms and exemplars that the headers tell; None without them."""
        names = [
            f"X-Prometheus-Remote-Write-{what}-Written" for what in ("Samples", "Histograms", "Exemplars")
        ]
        if not any(name in self.headers for name in names):
            return None
        return tuple(int(self.headers[name]) for name in names)


@dataclass
class Site:
    """A running receiver."""

    url: str
    app: App
    receiver: Receiver
    registry: CollectorRegistry
    session: aiohttp.ClientSession
    topic: str

    async def post(
        self, body: bytes | AsyncIterator[bytes], headers: Mapping[str, str] | None = None
    ) -> Answer:
        """The answer to a body as it travels."""
        sent = HEADERS[1] if headers is None else headers
        async with self.session.post(self.url, data=body, headers=sent) as answer:
            return Answer(answer.status, await answer.text(), answer.headers)

    async def write(self, version: int, *series: Series) -> Answer:
        """The answer to a request with `series`."""
        return await self.post(packed(encode(version, series)), HEADERS[version])

    async def frames(self) -> list[tuple[int, SampleFrame, int]]:
        """Partition, frame and size of every record on the broker."""
        broker = self.app.producer_transport.broker
        starts = {(self.topic, p): 0 for p in range(PARTITIONS)}
        found = await broker.fetch(starts, 1_000_000, 1 << 30)
        return [
            (partition, SampleFrame.decode(record.value), len(record.value))
            for (_, partition), records in found.items()
            for record in records
        ]

    async def samples(self) -> dict[Labels, list[tuple[int, float]]]:
        """Every sample on the broker, by series, in the order of its partition.

        Labels are remembered by id, as readers do: they go along with a series' first samples.
        """
        out: dict[Labels, list[tuple[int, float]]] = {}
        known: dict[bytes, Labels] = {}
        for _, frame, _ in await self.frames():
            ids = [frame.series.ids[i].tobytes() for i in range(len(frame.series))]
            for i in np.flatnonzero(frame.series.has_labels).tolist():
                known[ids[i]] = decode_labels(frame.series.block(i))
            labels = [known[each] for each in ids]
            columns = frame.row.tolist(), frame.timestamp_ms.tolist(), frame.value.tolist()
            for row, timestamp_ms, value in zip(*columns, strict=True):
                out.setdefault(labels[row], []).append((timestamp_ms, value))
        return out

    async def kinds(self) -> dict[str, int]:
        """The kind of each metric name; of the last frame that has it."""
        out = {}
        names: dict[bytes, str] = {}
        for _, frame, _ in await self.frames():
            for i in range(len(frame.series)):
                each = frame.series.ids[i].tobytes()
                if block := frame.series.block(i):
                    names[each] = dict(decode_labels(block))["__name__"]
                out[names[each]] = int(frame.series.kind[i])
        return out

    def count(self, name: str, **labels: str) -> float:
        """A counter of ours, 0 before it was touched."""
        return self.registry.get_sample_value(f"openanomaly_receiver_{name}", labels) or 0.0

    def dropped(self) -> dict[str, float]:
        """Samples dropped, by reason."""
        name = "openanomaly_receiver_samples_dropped_total"
        return {
            sample.labels["reason"]: sample.value
            for metric in self.registry.collect()
            for sample in metric.samples
            if sample.name == name and sample.value
        }


@asynccontextmanager
async def site(
    folder: Path,
    pipelines: Sequence[Pipeline] = EVERYTHING,
    disk_limit_bytes: int = 1 << 30,
    **settings: object,
) -> AsyncIterator[Site]:
    """A receiver from its start to its stop; `settings` are those of the receiver."""
    config = BrokerConfig(
        url=f"embedded://{folder}/broker", partitions=PARTITIONS, disk_limit_bytes=disk_limit_bytes
    )
    app, registry = make_app("ingest", config), CollectorRegistry()
    names = topics("t", PARTITIONS)
    receiver = create_receiver(
        app, ReceiverSettings.model_validate(settings), pipelines, names, ReceiverMetrics(registry)
    )
    app.finalize()
    await app.ensure_topics()
    await app.start()
    server = web.Application(client_max_size=0)
    server.router.add_post("/api/v1/write", receiver.handle)
    runner = web.AppRunner(server, auto_decompress=False)
    await runner.setup()
    port = web.TCPSite(runner, "127.0.0.1", 0)
    await port.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/api/v1/write"
    try:
        async with aiohttp.ClientSession() as session:
            yield Site(url, app, receiver, registry, session, names.samples.name)
    finally:
        await runner.cleanup()
        await receiver.stop()
        await app.stop()
        await app.close_transports()


def now_ms() -> int:
    return int(time.time() * 1000)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what must happen."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - a counter has no event
            await asyncio.sleep(0.01)
