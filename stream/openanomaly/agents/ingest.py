"""The receiver: remote-write requests in, sample frames on the broker, an answer once they are durable."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from aiohttp import web
from prometheus_client import Counter as Counted

from openanomaly.adapters.remote_write import decode_v1, decode_v2
from openanomaly.adapters.remote_write.columns import WriteColumns
from openanomaly.adapters.remote_write.negotiate import Version, negotiate
from openanomaly.adapters.remote_write.unpack import check_unpacked, declared_bytes, unpack
from openanomaly.agents.coalescer import Coalescer, Record
from openanomaly.agents.ingest_body import InFlight, read_body
from openanomaly.broker.faust_app import App, declare, publish
from openanomaly.broker.topics import Topics
from openanomaly.core.gather import FRAME_HEAD_BYTES
from openanomaly.core.identity import Identities, LabelLimits, Select
from openanomaly.core.intake import Batch, Intake
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.pipelines.selector import Selector
from openanomaly.errors import MalformedRequestError, RejectedError, RetryableError
from openanomaly.settings import ReceiverSettings
from openanomaly.telemetry import ReceiverMetrics

log = logging.getLogger(__name__)

_DECODE = {Version.V1: decode_v1.decode, Version.V2: decode_v2.decode}
_NAMES = {Version.V1: "1.0", Version.V2: "2.0"}
_INLINE_BYTES = 2 << 20
"""Unpacked size up to which a request is decoded on the event loop: a few milliseconds."""


@dataclass(slots=True)
class Outcome:
    """What became of a request. `refusals` is what its sender must hear, "" if all of it was taken.

    Attributes:
        samples: in the request, refused ones included.
        written, histograms, exemplars: accepted.
        dropped: samples by reason that are not in the batch.
    """

    batch: Batch
    samples: int
    written: int
    histograms: int
    exemplars: int
    metadata: int
    dropped: Counter[str] = field(default_factory=Counter)
    refusals: str = ""


class Receiver:
    """Answers remote-write requests; one per process."""

    def __init__(
        self,
        settings: ReceiverSettings,
        select: Select,
        partitions: int,
        coalescer: Coalescer,
        metrics: ReceiverMetrics,
    ) -> None:
        self._settings = settings
        limits = LabelLimits(
            settings.label_names_limit,
            settings.label_name_limit_bytes,
            settings.label_value_limit_bytes,
            settings.frame_limit_bytes - FRAME_HEAD_BYTES,
        )
        identities = Identities(
            settings.known_series,
            partitions,
            select,
            limits,
            settings.replica_labels,
            settings.cluster_label,
        )
        self._intake = Intake(
            identities,
            round(settings.max_future_s * 1000),
            round(settings.failover_s * 1000),
            round(settings.labels_every_s),
        )
        self._coalescer = coalescer
        self._metrics = metrics
        self._in_flight = InFlight(settings.in_flight_limit_bytes)
        metrics.in_flight_bytes.set_function(lambda: self._in_flight.used_bytes)
        metrics.known_series.set_function(lambda: len(self._intake.identities))
        self._failovers = 0
        self._decoding = asyncio.Lock()
        self._answered: dict[tuple[Version | None, int], Counted] = {}

    async def handle(self, request: web.Request) -> web.Response:
        """Accept one remote-write request; 204 only once the broker holds every sample of it."""
        version: Version | None = None
        written: dict[str, str] = {}
        try:
            version = negotiate(request.headers.get("Content-Type"), request.headers.get("Content-Encoding"))
            written = _written(version)
            answer = await self._accept(request, version)
        except RejectedError as exc:
            answer = web.Response(status=exc.status, text=str(exc), headers=written)
        except RetryableError as exc:
            headers = {"Retry-After": str(self._settings.retry_after_s), **written}
            answer = web.Response(status=503, text=str(exc), headers=headers)
        self._answered_with(version, answer.status).inc()
        return answer

    def _answered_with(self, version: Version | None, status: int) -> Counted:
        """The counter of these answers: to look one up by its labels costs as much as to read headers."""
        counted = self._answered.get((version, status))
        if counted is None:
            name = _NAMES[version] if version else "unknown"
            counted = self._answered[version, status] = self._metrics.requests.labels(name, str(status))
        return counted

    async def stop(self) -> None:
        """Send what is gathered; requests that wait for it are answered."""
        await self._coalescer.stop()

    def reselect(self, select: Select) -> None:
        """Pipelines have changed."""
        self._intake.identities.reselect(select)

    async def _accept(self, request: web.Request, version: Version) -> web.Response:
        with self._in_flight.hold() as hold:
            body = await read_body(request, self._settings.body_limit_bytes, hold)
            self._metrics.body_bytes.inc(len(body))
            size = declared_bytes(body)
            check_unpacked(size, self._settings.unpacked_limit_bytes)
            hold.add(size)
            outcome = await self._decode(body, size, version)
            await self._publish(outcome)
        headers = _written(version, outcome.written, outcome.histograms, outcome.exemplars)
        if outcome.refusals:
            return web.Response(status=400, text=outcome.refusals, headers=headers)
        return web.Response(status=204, headers=headers)

    async def _decode(self, body: bytes, size: int, version: Version) -> Outcome:
        async with self._decoding:
            if size <= _INLINE_BYTES:
                outcome = self._read(body, version)
            else:
                outcome = await asyncio.to_thread(self._read, body, version)
        self._count(outcome)
        return outcome

    def _read(self, body: bytes, version: Version) -> Outcome:
        """What a body holds. It depends on nothing but the body and the clock, so whatever goes wrong
        here goes wrong again: the sender must not repeat it."""
        try:
            raw = unpack(body, self._settings.unpacked_limit_bytes)
            return self._judge(_DECODE[version](raw, self._intake.identities))
        except RejectedError:
            raise
        except Exception as exc:
            log.exception("cannot decode a write request of %d bytes", len(body))
            raise MalformedRequestError(f"cannot decode write request: {exc!r}"[:1000]) from exc

    def _judge(self, columns: WriteColumns) -> Outcome:
        identities, refused = self._intake.identities, columns.refused
        for family, kind in columns.metadata:
            identities.families.learn(family, kind)
        taken = self._intake.take(
            columns.slot,
            columns.blocks,
            columns.row,
            columns.timestamp_ms,
            columns.value,
            columns.kind,
            int(time.time() * 1000),
        )
        samples = len(columns.row) + refused.samples
        dropped = taken.dropped
        if refused.samples:
            dropped["refused"] = refused.samples
        written = samples - dropped["refused"] - dropped["future"]
        outcome = Outcome(
            taken.batch,
            samples,
            written,
            columns.histograms,
            columns.exemplars,
            len(columns.metadata),
            dropped,
        )
        for reason in taken.late:
            refused.add(reason)
        refused.series += taken.late_series - len(taken.late)
        if refused:
            outcome.refusals = f"wrote {written} of {samples} samples, refused: {refused}"
        return outcome

    def _count(self, outcome: Outcome) -> None:
        metrics = self._metrics
        metrics.samples.inc(outcome.samples)
        for reason, samples in outcome.dropped.items():
            metrics.dropped.labels(reason).inc(samples)
        failovers = self._intake.replicas.failovers
        metrics.failovers.inc(failovers - self._failovers)
        self._failovers = failovers
        for kind in ("histograms", "exemplars", "metadata"):
            if count := getattr(outcome, kind):
                metrics.ignored.labels(kind).inc(count)

    async def _publish(self, outcome: Outcome) -> None:
        """Return once every sample of the batch is durable.

        Raises:
            RetryableError: some may not be; they count as dropped, the sender repeats them.
        """
        samples = len(outcome.batch.row)
        if not samples:
            return
        start = time.perf_counter()
        try:
            await self._coalescer.publish(outcome.batch)
        except RetryableError:
            self._metrics.dropped.labels("unavailable").inc(samples)
            raise
        if outcome.batch.blocks:
            async with self._decoding:
                self._intake.told(outcome.batch, int(time.time() * 1000))
            self._metrics.labelled.inc(len(outcome.batch.blocks))
        self._metrics.published.inc(samples)
        self._metrics.publish_seconds.observe(time.perf_counter() - start)


def _written(version: Version, samples: int = 0, histograms: int = 0, exemplars: int = 0) -> dict[str, str]:
    """The headers of a 2.0 answer, of errors too: without them its sender takes nothing as written."""
    if version is Version.V1:
        return {}
    return {
        "X-Prometheus-Remote-Write-Samples-Written": str(samples),
        "X-Prometheus-Remote-Write-Histograms-Written": str(histograms),
        "X-Prometheus-Remote-Write-Exemplars-Written": str(exemplars),
    }


def selects(pipelines: Sequence[Pipeline]) -> Select:
    """Whether any pipeline watches a series."""
    selectors = [Selector.parse(p.selector) for p in pipelines if p.query is None]
    return lambda labels: any(s.matches(labels) for s in selectors)


def create_receiver(
    app: App,
    settings: ReceiverSettings,
    pipelines: Sequence[Pipeline],
    topics: Topics,
    metrics: ReceiverMetrics,
    compress: bool = True,
) -> Receiver:
    """The receiver of a process, on an `ingest` app; declares the topic that it writes.

    `compress`: label columns of frames are compressed. On disk a sample is then 50 bytes and not 250.
    """
    samples = topics.samples
    declare(app, samples)

    async def send(records: Sequence[Record]) -> None:
        await publish(app, samples.name, records, settings.publish_timeout_s)

    def on_frame(size: int) -> None:
        metrics.frame_bytes.observe(size)

    coalescer = Coalescer(send, settings.coalesce_ms / 1000, settings.frame_limit_bytes, on_frame, compress)
    return Receiver(settings, selects(pipelines), samples.partitions, coalescer, metrics)
