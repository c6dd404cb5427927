"""A remote-write target that answers as a test says: a real HTTP server on a free port."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from parts.part import HOST, free_port
from scores import Sample, samples

Answer = int | web.Response | str
"""A status, a whole response, or `close` (drop the connection), `hang` (never answer), `noise` (no HTTP)."""


@dataclass
class Target:
    """Gives the answers in its script, then takes everything.

    Attributes:
        script: answers to the next requests; or a function of the samples, None for "take it".
        seen: headers of every request.
        taken: samples of the requests that were answered with 2xx, in their order.
    """

    port: int = field(default_factory=free_port)
    tls: ssl.SSLContext | None = None
    script: list[Answer] | Callable[[list[Sample]], Answer | None] = field(default_factory=list)
    seen: list[dict[str, str]] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    taken: list[Sample] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{HOST}:{self.port}/api/v1/write"

    def answer(self, *answers: Answer, times: int = 1) -> None:
        assert isinstance(self.script, list)
        self.script += [*answers] * times

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Target"]:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_post("/api/v1/write", self._write)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, HOST, self.port, ssl_context=self.tls).start()
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _write(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(dict(request.headers))
        found = samples(await request.read())
        self.sizes.append(len(found))
        answer = self._next(found)
        if isinstance(answer, str):
            return await self._misbehave(request, answer)
        response = web.Response(status=answer) if isinstance(answer, int) else answer
        if response.status < 300:
            self.taken += found
        return response

    def _next(self, found: list[Sample]) -> Answer:
        if callable(self.script):
            answer = self.script(found)
            return 204 if answer is None else answer
        return self.script.pop(0) if self.script else 204

    async def _misbehave(self, request: web.Request, how: str) -> web.StreamResponse:
        transport: Any = request.transport
        if how == "hang":
            await asyncio.sleep(3600)
        if how == "noise":
            transport.write(b"\x00\x01 this is no HTTP\r\n\r\n")
        transport.close()
        return web.Response()


def refuse_values(bad: Iterable[float], status: int = 400) -> Callable[[list[Sample]], Answer | None]:
    """A target that refuses a request as a whole if one of its values is among `bad`."""
    never = set(bad)

    def answer(found: list[Sample]) -> Answer | None:
        hit = [value for _, _, value in found if value in never]
        return web.Response(status=status, text=f"value {hit[0]} is refused") if hit else None

    return answer
