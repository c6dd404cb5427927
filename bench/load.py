"""Remote-write load, 1.0 and 2.0: requests of many series, built by numpy so that the sender costs little."""

import asyncio
from dataclasses import dataclass

import aiohttp
import numpy as np
import snappy
from numpy.typing import NDArray

from openanomaly.core.series import encode_labels

HEADERS = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
    "User-Agent": "openanomaly-bench",
}
HEADERS_2 = HEADERS | {
    "Content-Type": "application/x-protobuf;proto=io.prometheus.write.v2.Request",
    "X-Prometheus-Remote-Write-Version": "2.0.0",
}


def labels_of(i: int, length: int, name: str = "bench_metric") -> bytes:
    """Label block of series `i`, padded to `length` bytes; the same length for every i."""
    return encode_labels(_pairs(i, length, name))


def _pairs(i: int, length: int, name: str) -> list[tuple[str, str]]:
    pairs = [
        ("__name__", f"{name}_{i % 50:02d}"),
        ("cluster", "bench"),
        ("instance", f"host-{i // 50:07d}.example.com:9100"),
        ("job", "node"),
    ]
    short = len(encode_labels([*pairs, ("pad", "x")]))
    if length > short:
        pairs.append(("pad", "x" * (1 + length - short)))
    return pairs


@dataclass
class Request:
    """One request: a matrix of TimeSeries records of which value and timestamp are overwritten.

    `head` is what stands before them: the symbols of 2.0.
    """

    records: NDArray[np.uint8]
    value_at: int
    time_at: int
    head: bytes = b""

    def body(self, value: NDArray[np.float64], timestamp_ms: int) -> bytes:
        """The snappy body with one sample per series."""
        n = len(self.records)
        self.records[:, self.value_at : self.value_at + 8] = value.astype("<f8").view(np.uint8).reshape(n, 8)
        self.records[:, self.time_at : self.time_at + 6] = np.frombuffer(_varint6(timestamp_ms), np.uint8)
        return snappy.compress(self.head + self.records.tobytes())


def _varint6(value: int) -> bytes:
    """A timestamp of this century in milliseconds is six bytes."""
    out = bytes((value >> 7 * i & 0x7F) | (0x80 if i < 5 else 0) for i in range(6))
    if value >> 42:
        raise ValueError(f"timestamp {value} needs more than six bytes")
    return out


def requests(series: int, per_request: int = 2000, label_bytes: int = 200) -> list[Request]:
    """Requests that hold `series` series once, in Prometheus' encoding."""
    out = []
    for start in range(0, series, per_request):
        records = []
        for i in range(start, min(start + per_request, series)):
            block = labels_of(i, label_bytes)
            sample = b"\x12\x10\x09" + bytes(8) + b"\x10" + bytes(6)
            body = block + sample
            records.append(b"\x0a" + _length(len(body)) + body)
        matrix = np.frombuffer(b"".join(records), np.uint8).reshape(len(records), -1).copy()
        width = matrix.shape[1]
        out.append(Request(matrix, width - 15, width - 6))
    return out


def requests_2(series: int, per_request: int = 2000, label_bytes: int = 200) -> list[Request]:
    """The series of `requests`, as remote-write 2.0: symbols once a request, a type with every series."""
    out = []
    for start in range(0, series, per_request):
        symbols: dict[str, int] = {"": 0}
        records = []
        for i in range(start, min(start + per_request, series)):
            strings = [s for pair in _pairs(i, label_bytes, "bench_metric") for s in pair]
            refs = b"".join(_length(symbols.setdefault(s, len(symbols))) for s in strings)
            sample = b"\x12\x10\x09" + bytes(8) + b"\x10" + bytes(6)
            body = b"\x0a" + _length(len(refs)) + refs + sample + _GAUGE
            records.append(b"\x2a" + _length(len(body)) + body)
        head = b"".join(b"\x22" + _length(len(s)) + s.encode() for s in symbols)
        width = len(records[0])
        # A request of more than 127 strings would have references of one and of two bytes.
        if any(len(r) != width for r in records):
            raise ValueError(f"records differ in length: {len(symbols)} symbols")
        matrix = np.frombuffer(b"".join(records), np.uint8).reshape(len(records), width).copy()
        out.append(Request(matrix, width - len(_GAUGE) - 15, width - len(_GAUGE) - 6, head))
    return out


_GAUGE = b"\x2a\x02\x08\x02"
"""Metadata of type gauge."""


def _length(n: int) -> bytes:
    return bytes([n]) if n < 128 else bytes([n & 0x7F | 0x80, n >> 7])


async def send(
    session: aiohttp.ClientSession,
    url: str,
    bodies: list[bytes],
    concurrency: int = 4,
    headers: dict[str, str] = HEADERS,
) -> dict[int, int]:
    """Post bodies, `concurrency` at a time; how many answers had which status."""
    statuses: dict[int, int] = {}
    waiting = iter(bodies)

    async def worker() -> None:
        for body in waiting:
            while True:
                async with session.post(url, data=body, headers=headers) as answer:
                    statuses[answer.status] = statuses.get(answer.status, 0) + 1
                    if answer.status != 503:
                        break
                await asyncio.sleep(0.2)

    await asyncio.gather(*(worker() for _ in range(concurrency)))
    return statuses
