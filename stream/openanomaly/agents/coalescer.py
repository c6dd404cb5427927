"""Gathers the batches of a few milliseconds into frames; each waits for exactly its own."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from openanomaly.core.gather import SAMPLE_BYTES, SERIES_BYTES, Cut, cut
from openanomaly.core.intake import Batch
from openanomaly.errors import BusUnavailableError, RetryableError

log = logging.getLogger(__name__)

Record = tuple[int, bytes | None, bytes | memoryview | None]
Publish = Callable[[Sequence[Record]], Awaitable[None]]

_GATHERED_BYTES = 8 << 20
"""Gathered samples that are sent without waiting for more."""
_INLINE_BYTES = 8 << 20
"""Up to here frames are cut on the event loop; more would block it for tens of milliseconds."""


@dataclass(slots=True)
class _Waiter:
    batch: Batch
    durable: "asyncio.Future[None]"
    open: int = 0
    """Groups of frames that are not durable yet."""


class Coalescer:
    """Publishes batches through `publish`, which returns once all its records are durable."""

    def __init__(
        self,
        publish: Publish,
        coalesce_s: float,
        frame_limit_bytes: int,
        on_frame: Callable[[int], None] = lambda size: None,
        compress: bool = False,
    ) -> None:
        """`on_frame` hears the size of each frame that was published."""
        self._publish = publish
        self._coalesce_s = coalesce_s
        self._frame_limit_bytes = frame_limit_bytes
        self._on_frame = on_frame
        self._compress = compress
        self._gathered: list[_Waiter] = []
        self._gathered_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def publish(self, batch: Batch) -> None:
        """Return when every sample of the batch is durable.

        Raises:
            BusUnavailableError: some may not be; the same batch may be published again.
        """
        loop = asyncio.get_running_loop()
        waiter = _Waiter(batch, loop.create_future())
        self._gathered.append(waiter)
        self._gathered_bytes += _size(batch)
        if self._gathered_bytes >= _GATHERED_BYTES:
            self._flush()
        elif self._timer is None:
            self._timer = loop.call_later(self._coalesce_s, self._flush)
        # A request that gives up takes nobody along: what is gathered is sent by a task of its own.
        await waiter.durable

    async def stop(self) -> None:
        """Send what is gathered, and wait until all of it is durable or has failed."""
        self._flush()
        while self._tasks:
            await asyncio.gather(*self._tasks)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._gathered:
            waiters, size = self._gathered, self._gathered_bytes
            self._gathered, self._gathered_bytes = [], 0
            self._start(self._send(waiters, size))

    def _start(self, work: "Awaitable[None]") -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, waiters: list[_Waiter], size: int) -> None:
        batches = [w.batch for w in waiters]
        what = batches, self._frame_limit_bytes, int(time.time() * 1000), self._compress
        try:
            frames = cut(*what) if size < _INLINE_BYTES else await asyncio.to_thread(cut, *what)
        except BaseException as exc:  # every waiter must hear
            _settle(waiters, exc)
            raise
        # Frames of the same requests go together: one of them late is late for all of those.
        groups: dict[frozenset[int], list[Cut]] = {}
        for frame in frames:
            groups.setdefault(frame.batches, []).append(frame)
        for numbers in groups:
            for i in numbers:
                waiters[i].open += 1
        for numbers, group in groups.items():
            self._start(self._send_group([waiters[i] for i in numbers], group))
        _settle([w for w in waiters if not w.open])

    async def _send_group(self, waiters: list[_Waiter], frames: list[Cut]) -> None:
        try:
            await self._publish([(f.partition, None, f.record) for f in frames])
        except RetryableError as exc:
            _settle(waiters, exc)
        except BaseException as exc:
            log.exception("cannot publish %d frames", len(frames))
            _settle(waiters, BusUnavailableError(f"cannot publish: {exc!r}"))
            if not isinstance(exc, Exception):
                raise
        else:
            for frame in frames:
                self._on_frame(len(frame.record))
            for waiter in waiters:
                waiter.open -= 1
            _settle([w for w in waiters if not w.open])


def _settle(waiters: list[_Waiter], exc: BaseException | None = None) -> None:
    for waiter in waiters:
        if not waiter.durable.done():
            if exc is None:
                waiter.durable.set_result(None)
            else:
                waiter.durable.set_exception(exc)


def _size(batch: Batch) -> int:
    labels = len(batch.blocks[0]) * len(batch.blocks) if batch.blocks else 0
    return labels + len(batch.ids) * SERIES_BYTES + len(batch.row) * SAMPLE_BYTES
