"""Write requests of both versions, made from plain series with the full schemas."""

from collections.abc import Sequence
from dataclasses import dataclass

import snappy

from openanomaly.adapters.remote_write.histograms import Histogram
from openanomaly.core.series import Labels
from openanomaly.pb.prometheus import remote_write_1_pb2 as pb1
from openanomaly.pb.prometheus import remote_write_2_pb2 as pb2

V1_HEADERS = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}
V2_HEADERS = {
    "Content-Type": "application/x-protobuf;proto=io.prometheus.write.v2.Request",
    "Content-Encoding": "snappy",
    "X-Prometheus-Remote-Write-Version": "2.0.0",
}
HEADERS = {1: V1_HEADERS, 2: V2_HEADERS}
COUNTER, GAUGE, HISTOGRAM = 1, 2, 3


@dataclass(frozen=True)
class Series:
    """A time series as a sender has it.

    Attributes:
        samples: timestamp_ms, value.
        exemplars: labels of each.
        histograms: sets of fields that both versions have.
        kind: number of its metric type; 2.0 only.
    """

    labels: Labels
    samples: Sequence[tuple[int, float]] = ()
    exemplars: Sequence[Labels] = ()
    histograms: Sequence[dict[str, object]] = ()
    kind: int = 0
    start_ms: int = 0


def named(name: str, **labels: str) -> Labels:
    """The labels of a metric, in order."""
    return tuple(sorted({"__name__": name, **labels}.items()))


def v1(series: Sequence[Series], metadata: Sequence[tuple[str, int]] = ()) -> bytes:
    """An unpacked 1.0 request; `metadata` are family names with the numbers of their types."""
    request = pb1.WriteRequest()
    for s in series:
        ts = request.timeseries.add()
        for name, value in s.labels:
            ts.labels.add(name=name.encode(), value=value.encode())
        for timestamp, number in s.samples:
            ts.samples.add(timestamp=timestamp, value=number)
        for labels in s.exemplars:
            exemplar = ts.exemplars.add(value=1.0, timestamp=1)
            for name, value in labels:
                exemplar.labels.add(name=name.encode(), value=value.encode())
        for fields in s.histograms:
            fill(ts.histograms.add(), fields)
    for name, kind in metadata:
        request.metadata.add(metric_family_name=name.encode(), type=kind, help=b"help")
    return request.SerializeToString()


def v2(series: Sequence[Series]) -> bytes:
    """An unpacked 2.0 request."""
    request, symbols = pb2.Request(), {"": 0}

    def refs(labels: Labels) -> list[int]:
        return [symbols.setdefault(text, len(symbols)) for pair in labels for text in pair]

    for s in series:
        ts = request.timeseries.add(labels_refs=refs(s.labels))
        for timestamp, number in s.samples:
            ts.samples.add(timestamp=timestamp, value=number, start_timestamp=s.start_ms)
        for labels in s.exemplars:
            ts.exemplars.add(labels_refs=refs(labels), value=1.0, timestamp=1)
        for fields in s.histograms:
            fill(ts.histograms.add(), fields)
        # Senders written in Go always write the metadata, empty or not.
        ts.metadata.type = s.kind
        ts.metadata.SetInParent()
    request.symbols.extend(text.encode() for text in symbols)
    return request.SerializeToString()


def fill(histogram: Histogram, fields: dict[str, object]) -> None:
    """Set fields of a native histogram; spans are pairs of offset and length."""
    for name, value in fields.items():
        if name.endswith("_spans"):
            for offset, length in value:  # type: ignore[attr-defined]
                getattr(histogram, name).add(offset=offset, length=length)
        elif isinstance(value, list):
            getattr(histogram, name).extend(value)
        else:
            setattr(histogram, name, value)


def encode(version: int, series: Sequence[Series]) -> bytes:
    """An unpacked request of version 1 or 2."""
    return v1(series) if version == 1 else v2(series)


def packed(raw: bytes) -> bytes:
    """As it travels."""
    body: bytes = snappy.compress(raw)
    return body
