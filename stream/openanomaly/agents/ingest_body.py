"""Request bodies within bounds: of one body, and of all bytes in work together."""

import asyncio
from types import TracebackType
from typing import Self

from aiohttp import web

from openanomaly.errors import MalformedRequestError, RequestTooLargeError, RetryableError

_READ_S = 60.0
"""Longest wait for a body; senders give up before (Prometheus after 30 s)."""


class InFlight:
    """Bytes of all requests in work, bounded by `limit_bytes`."""

    def __init__(self, limit_bytes: int) -> None:
        self.used_bytes = 0
        self._limit_bytes = limit_bytes

    def hold(self) -> "Hold":
        """A request's share, none at first; a context manager that gives it back."""
        return Hold(self)

    def move(self, size: int, own: int) -> None:
        """Count `size` bytes more for a request that holds `own`.

        Raises:
            RetryableError: there is no room now. A request alone always has it.
        """
        if size > 0 and self.used_bytes > own and self.used_bytes + size > self._limit_bytes:
            raise RetryableError(
                f"cannot take write request of {own + size} bytes now: {self.used_bytes} bytes are in work, "
                f"limit {self._limit_bytes}; raise receiver.in_flight_limit_bytes"
            )
        self.used_bytes += size


class Hold:
    """What one request holds of the bytes in flight."""

    __slots__ = ("_in_flight", "_size")

    def __init__(self, in_flight: InFlight) -> None:
        self._in_flight = in_flight
        self._size = 0

    def add(self, size: int) -> None:
        """Hold `size` bytes more.

        Raises:
            RetryableError: there is no room now.
        """
        self._in_flight.move(size, self._size)
        self._size += size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._in_flight.move(-self._size, self._size)


async def read_body(request: web.Request, limit_bytes: int, hold: Hold) -> bytes:
    """The body of a request; every chunk is held before the next one is read.

    Raises:
        RequestTooLargeError: it is, or says it is, above the limit.
        MalformedRequestError: the connection ended in its midst.
        RetryableError: no room, or it did not come in time.
    """
    _check(request.content_length or 0, limit_bytes)
    content = request.content
    if content.is_eof() and content.exception() is None:  # as usual: all of it came with the head
        body = content.read_nowait()
        _check(len(body), limit_bytes)
        hold.add(len(body))
        return body
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(_READ_S):
            while chunk := await content.readany():
                size += len(chunk)
                _check(size, limit_bytes)
                hold.add(len(chunk))
                chunks.append(chunk)
    except TimeoutError as exc:
        raise RetryableError(f"cannot read write request: {size} bytes came within {_READ_S:.0f} s") from exc
    except (web.RequestPayloadError, ConnectionError) as exc:
        raise MalformedRequestError(f"cannot read write request after {size} bytes: {exc}") from exc
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _check(size: int, limit_bytes: int) -> None:
    if size > limit_bytes:
        raise RequestTooLargeError(
            f"cannot take write request: {size} bytes, limit {limit_bytes}; "
            "raise receiver.body_limit_bytes (OPENANOMALY_RECEIVER_BODY_LIMIT_BYTES)"
        )
