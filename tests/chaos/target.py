"""A remote-write target that remembers every score of a fleet, and misbehaves when it is told to."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import cramjam
import numpy as np
from aiohttp import web
from numpy.typing import NDArray

from chaos.fleet import STEP_MS, Fleet
from openanomaly.core.series import decode_labels
from parts.part import HOST, free_port

KINDS = ("yhat", "anomaly_score", "y")
"""What the sink is to write, in this order: a series' `y` comes last, so that with it all is there."""
SERIES = list(KINDS)
Behaviour = Literal["take", "error", "hang", "refuse"]
_SAMPLE = np.dtype([("head", "u1", 3), ("value", "<f8"), ("tag", "u1"), ("time", "u1", 6)])
_SAME = 1e-6


class Target:
    """What was written of each step.

    Attributes:
        seen: by kind (steps, N) values; NaN where nothing came.
        count: by step, how many series have their `y`.
        complete: steps before this one are there of every series, from `first` on.
        complete_s: by step, when its last value came (monotonic).
        repeated, differing: values that came again, and those of them that are not the same.
        strange: samples of no series or step of the fleet.
    """

    def __init__(self, fleet: Fleet, steps: int, first: int) -> None:
        self.fleet, self.first = fleet, first
        self.seen = {kind: np.full((steps, fleet.series), np.nan) for kind in KINDS}
        self.count = np.zeros(steps, np.int64)
        self.complete = first
        self.complete_s: dict[int, float] = {}
        self.repeated = self.differing = self.strange = 0
        self.differences: list[tuple[str, int, int, float, float]] = []
        self.behaviour: Behaviour = "take"
        self.requests = 0
        self._heads: dict[bytes, int] = {}
        self._port = free_port()
        self._site: web.TCPSite | None = None
        self._released = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._port}/api/v1/write"

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Target"]:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_post("/api/v1/write", self._write)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await self._listen()
        try:
            yield self
        finally:
            await self._runner.cleanup()

    async def _listen(self) -> None:
        self._site = web.TCPSite(self._runner, HOST, self._port, reuse_address=True)
        await self._site.start()

    async def behave(self, how: Behaviour) -> None:
        """Answer like this from now on; what hangs is let go when that changes."""
        was, self.behaviour = self.behaviour, how
        if how == "hang":
            self._released.clear()
        else:
            self._released.set()
        if how == "refuse" and self._site is not None:
            await self._site.stop()
            self._site = None
            for connection in list(self._runner.server.connections):  # type: ignore[union-attr]
                connection.force_close()
        elif was == "refuse":
            await self._listen()

    async def _write(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.requests += 1
        if self.behaviour == "hang":
            await self._released.wait()
            return web.Response(status=503)
        if self.behaviour != "take":
            return web.Response(status=503)
        self._take(bytes(cramjam.snappy.decompress_raw(body)))
        return web.Response(status=204)

    # -- what is in a request --------------------------------------------------------------------

    def _take(self, raw: bytes) -> None:
        places, tails = self._split(raw)
        rows = np.frombuffer(b"".join(tails), _SAMPLE)
        time_ms = np.zeros(len(rows), np.int64)
        for i in range(6):
            time_ms |= (rows["time"][:, i].astype(np.int64) & 0x7F) << 7 * i
        step = (time_ms - self.fleet.start_ms) // STEP_MS - 1
        place = np.array(places, np.int64)
        known = (place >= 0) & (step >= 0) & (step < len(self.count))
        known &= time_ms == self.fleet.start_ms + (step + 1) * STEP_MS
        self.strange += int((~known).sum())
        for number, kind in enumerate(KINDS):
            at = np.flatnonzero(known & (place % len(KINDS) == number))
            self._note(kind, step[at], place[at] // len(KINDS), rows["value"][at].astype(np.float64))

    def _note(
        self, kind: str, step: NDArray[np.int64], series: NDArray[np.int64], value: NDArray[np.float64]
    ) -> None:
        seen = self.seen[kind]
        # One after another where a request holds a series' step twice: rare, and then they are compared.
        _, first = np.unique(step * self.fleet.series + series, return_index=True)
        if first.size < step.size:
            rest = np.setdiff1d(np.arange(step.size), first)
            self._note(kind, step[first], series[first], value[first])
            self._note(kind, step[rest], series[rest], value[rest])
            return
        before = seen[step, series]
        had = ~np.isnan(before)
        if had.any():
            self.repeated += int(had.sum())
            other = np.flatnonzero(had & ~(np.abs(value - before) <= _SAME * np.maximum(1, np.abs(before))))
            self.differing += other.size
            for i in other[:20].tolist():
                what = int(step[i]), int(series[i]), float(before[i]), float(value[i])
                self.differences.append((kind, *what))
        seen[step, series] = value
        if kind == "y":
            self.count += np.bincount(step[~had], minlength=len(self.count))
            while self.complete < len(self.count) and self.count[self.complete] == self.fleet.series:
                self.complete_s[self.complete] = time.monotonic()
                self.complete += 1

    def _split(self, raw: bytes) -> tuple[list[int], list[bytes]]:
        """The place (series and kind) and the sample of each time series of our sink."""
        places, tails = [], []
        heads, size, at = self._heads, _SAMPLE.itemsize, 0
        while at < len(raw):
            length, shift, at = 0, 0, at + 1  # the tag of a time series is one byte
            while True:
                byte = raw[at]
                length |= (byte & 0x7F) << shift
                at, shift = at + 1, shift + 7
                if byte < 0x80:
                    break
            head = raw[at : at + length - size]
            place = heads.get(head)
            if place is None:
                place = heads[head] = self._place(head)
            places.append(place)
            at += length
            tails.append(raw[at - size : at])
        return places, tails

    def _place(self, head: bytes) -> int:
        labels = dict(decode_labels(head))
        host, kind = labels.get("host", ""), labels.get("__name__", "")
        if kind not in KINDS or not host.startswith("host-") or labels.get("for") != "chaos_load":
            return -1
        series = int(host.removeprefix("host-"))
        return series * len(KINDS) + KINDS.index(kind) if series < self.fleet.series else -1


def values_of(target: Target, kind: str, step: int) -> NDArray[Any]:
    return target.seen[kind][step]
