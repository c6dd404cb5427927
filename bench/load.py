"""Remote-write 1.0 load: requests of many series, built by numpy so that the sender costs little."""

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


def labels_of(i: int, length: int, name: str = "bench_metric") -> bytes:
    """Label block of series `i`, padded to `length` bytes; the same length for every i."""
    pairs = [
        ("__name__", f"{name}_{i % 50:02d}"),
        ("cluster", "bench"),
        ("instance", f"host-{i // 50:07d}.example.com:9100"),
        ("job", "node"),
    ]
    short = len(encode_labels([*pairs, ("pad", "x")]))
    if length > short:
        pairs.append(("pad", "x" * (1 + length - short)))
    return encode_labels(pairs)


@dataclass
class Request:
    """One request: a matrix of TimeSeries records of which value and timestamp are overwritten."""

    records: NDArray[np.uint8]
    value_at: int
    time_at: int

    def body(self, value: NDArray[np.float64], timestamp_ms: int) -> bytes:
        """The snappy body with one sample per series."""
        n = len(self.records)
        self.records[:, self.value_at : self.value_at + 8] = value.astype("<f8").view(np.uint8).reshape(n, 8)
        self.records[:, self.time_at : self.time_at + 6] = np.frombuffer(_varint6(timestamp_ms), np.uint8)
        return snappy.compress(self.records.tobytes())


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


def _length(n: int) -> bytes:
    return bytes([n]) if n < 128 else bytes([n & 0x7F | 0x80, n >> 7])


async def send(
    session: aiohttp.ClientSession, url: str, bodies: list[bytes], concurrency: int = 4
) -> dict[int, int]:
    """Post bodies, `concurrency` at a time; how many answers had which status."""
    statuses: dict[int, int] = {}
    waiting = iter(bodies)

    async def worker() -> None:
        for body in waiting:
            while True:
                async with session.post(url, data=body, headers=HEADERS) as answer:
                    statuses[answer.status] = statuses.get(answer.status, 0) + 1
                    if answer.status != 503:
                        break
                await asyncio.sleep(0.2)

    await asyncio.gather(*(worker() for _ in range(concurrency)))
    return statuses
