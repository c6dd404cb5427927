"""A sender of remote-write 1.0 that behaves as Prometheus does: in order, and again until it is taken."""

import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from email.message import Message

import cramjam

from openanomaly.core.series import Labels
from openanomaly.pb.prometheus import remote_write_1_pb2 as pb

HEADERS = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}


def request(samples: Mapping[Labels, Sequence[tuple[int, float]]]) -> bytes:
    """The body of one request: for each series its (timestamp_ms, value) pairs."""
    message = pb.WriteRequest()
    for labels, pairs in samples.items():
        series = message.timeseries.add()
        for name, value in labels:
            series.labels.add(name=name.encode(), value=value.encode())
        for timestamp_ms, number in pairs:
            series.samples.add(timestamp=timestamp_ms, value=number)
    return bytes(cramjam.snappy.compress_raw(message.SerializeToString()))


def push(url: str, body: bytes, timeout_s: float = 60.0, headers: Mapping[str, str] = HEADERS) -> Message:
    """Sends one request until it is answered with 2xx; gives the headers of that answer.

    A refusal (4xx) is an error: nothing that is sent here may be refused. 5xx and a server that is away
    are tried again, as Prometheus would.
    """
    end = time.monotonic() + timeout_s
    while True:
        try:
            asked = urllib.request.Request(url, body, dict(headers))
            with urllib.request.urlopen(asked, timeout=35) as answer:
                found: Message = answer.headers
                return found
        except urllib.error.HTTPError as exc:
            if exc.code < 500 or time.monotonic() > end:
                raise AssertionError(f"{exc.code}: {exc.read().decode()}") from exc
        except OSError:
            if time.monotonic() > end:
                raise
        time.sleep(0.2)
