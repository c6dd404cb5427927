"""What the demo asks of the running product, and how it waits for it: over HTTP, as anybody could."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import aiohttp

from openanomaly.adapters.remote_write.encode import HEADERS
from openanomaly.core.series import Labels, canonical
from openanomaly.demo.product import DemoError

_WRITE = "/api/v1/write"
_STATUS = "/api/v1/admin/status"
_ANOMALIES = "/api/v1/anomalies"
_STALLED_S = 60.0
_ASK_AGAIN_S = 0.01
_SEND_AGAIN_S = 0.2

Counts = Counter[str]


class Client:
    """Speaks to one product. What it does not answer as it should is a DemoError."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url
        self._pushed = 0
        self._asked = 0

    async def push(self, bodies: Sequence[bytes], samples: int) -> None:
        """Send requests that hold so many samples, once all but the last forecasts have come.

        Returns when windows hold the samples, and what was due with them has been asked of inference.
        """
        await self.forecast(self._asked)
        due = (await self.counts())["due"]
        await asyncio.gather(*(self._send(body) for body in bodies))
        self._pushed += samples
        counts = await self._until(lambda c: c["in"] >= self._pushed, "samples are missing in windows")
        self._asked = counts["due"] - due

    async def forecast(self, but: int = 0) -> None:
        """Wait until all forecasts have come but so many: those that were asked for last."""
        await self._until(lambda c: c["due"] - c["forecasts"] <= but, "forecasts are missing")

    async def counts(self) -> Counts:
        """What windows have counted since they started."""
        return Counter((await self._get(_STATUS))["window"]["counts"])

    async def model(self) -> str:
        """Which engine forecasts."""
        models = (await self._get(_STATUS))["inference"]["models"]
        return ", ".join(sorted(set(models.values())))

    async def anomaly(self, labels: Labels, since_ms: int) -> Any | None:
        """What the status page lists of a series, if it had an episode since then."""
        # A list of all of them has an end; this one is asked for by its labels.
        match = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in labels)
        query: dict[str, int | str] = {"since": since_ms, "match": f"{{{match}}}", "steps": 0}
        found = (await self._get(_ANOMALIES, query))["anomalies"]
        return next((a for a in found if canonical(a["labels"].items()) == labels), None)

    async def _until(self, is_true: Callable[[Counts], bool], what: str) -> Counts:
        """Wait for something that the counts tell, as long as they move; the counts."""
        before: Counts | None = None
        since_s = time.monotonic()
        while not is_true(counts := await self.counts()):
            if counts != before:
                before, since_s = counts, time.monotonic()
            elif time.monotonic() - since_s > _STALLED_S:
                raise DemoError(f"{what} for {_STALLED_S:.0f} s: {dict(counts)}")
            await asyncio.sleep(_ASK_AGAIN_S)
        return counts

    async def _send(self, body: bytes) -> None:
        while True:
            async with self._session.post(self._url + _WRITE, data=body, headers=HEADERS) as answer:
                if answer.status < 300:
                    return
                if answer.status != 503:
                    raise DemoError(f"the receiver answered {answer.status}: {await answer.text()}")
            await asyncio.sleep(_SEND_AGAIN_S)

    async def _get(self, path: str, query: dict[str, int | str] | None = None) -> Any:
        async with self._session.get(self._url + path, params=query) as answer:
            if answer.status != 200:
                raise DemoError(f"{path} answered {answer.status}: {await answer.text()}")
            return await answer.json()
