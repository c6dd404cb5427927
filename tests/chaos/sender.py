"""Sends a fleet's steps as Prometheus does: in order within a series, again until taken. Keeps the books."""

import asyncio
import time
from collections.abc import Sequence

import aiohttp

from chaos.fleet import Fleet

HEADERS = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}
_TIMEOUT_S = 30.0  # Prometheus' own
_PAUSE_S = 0.2
_SHARDS = 4


class Sender:
    """Some shards, each with series of its own and one request on its way.

    Attributes:
        released: steps that the shards were told to send.
        done: by request of a step, how many steps of it were acknowledged.
        acked_s: by step, when the last of its requests was acknowledged (monotonic).
        refused: answers of 4xx, of which there may be none.
        again: requests that had to be sent again.
    """

    def __init__(self, fleet: Fleet, urls: Sequence[str]) -> None:
        self.fleet, self.urls = fleet, list(urls)
        self.released = 0
        self.done = [0] * len(fleet.slices)
        self.acked_s: dict[int, float] = {}
        self.refused: list[str] = []
        self.again = 0
        self._came = asyncio.Condition()

    @property
    def taken(self) -> int:
        """Steps of which every sample was acknowledged."""
        return min(self.done)

    @property
    def samples(self) -> int:
        """Samples that were acknowledged."""
        return sum(n * (s.stop - s.start) for n, s in zip(self.done, self.fleet.slices, strict=True))

    async def release(self) -> int:
        """Have the next step sent; its number."""
        async with self._came:
            self.released += 1
            self._came.notify_all()
        return self.released - 1

    async def run(self) -> None:
        """Send what is released, until cancelled."""
        requests = range(len(self.fleet.slices))
        shards = min(_SHARDS, len(requests))
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session, asyncio.TaskGroup() as group:
            for i in range(shards):
                group.create_task(self._shard(session, requests[i::shards], i))

    async def _shard(self, session: aiohttp.ClientSession, requests: Sequence[int], number: int) -> None:
        step = 0
        while True:
            async with self._came:
                await self._came.wait_for(lambda: self.released > step)  # noqa: B023
            for request in requests:
                await self._push(session, self.fleet.body(step, request), number)
                self.done[request] = step + 1
            if self.taken > step:
                self.acked_s[step] = time.monotonic()
            step += 1

    async def _push(self, session: aiohttp.ClientSession, body: bytes, number: int) -> None:
        attempt = number
        while True:
            url = self.urls[attempt % len(self.urls)]
            try:
                async with session.post(url, data=body, headers=HEADERS) as answer:
                    if answer.status < 300:
                        return
                    if answer.status < 500:
                        self.refused.append(f"{answer.status}: {await answer.text()}")
                        return
            except (aiohttp.ClientError, TimeoutError):
                pass
            self.again += 1
            attempt += 1
            await asyncio.sleep(_PAUSE_S)
