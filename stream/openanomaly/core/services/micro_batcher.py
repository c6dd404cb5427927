"""Collects contexts into batches and keeps the engine busy: one batch runs, one is prepared."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.frames import DueFrame
from openanomaly.core.ports.model_engine import ModelEngine
from openanomaly.core.services import attempt
from openanomaly.core.services.attempt import Outcome, forecast
from openanomaly.core.services.due_queue import Cut, DueQueue, Key, Part, Request, stack
from openanomaly.core.services.shapes import batch_sizes, lengths
from openanomaly.errors import EngineLostError

log = logging.getLogger(__name__)

_GROW_AFTER = 64
_LOST_AFTER = 5
"""Batches in a row of which an engine that worked before forecasts nothing, not even a plain context."""
_TELL_S = 60.0


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """How batches are made.

    Attributes:
        max_batch: rows of one batch.
        max_wait_s: longest wait of a context for others to share its batch.
        queue_limit: rows that may wait; beyond it `submit` does.
        levels: quantile levels of every forecast.
    """

    max_batch: int
    max_wait_s: float
    queue_limit: int
    levels: Sequence[float]


class Observer(attempt.Observer, Protocol):
    """Hears what the batcher does. Called in the event loop. A row may be dropped as `stale`, too."""

    def waited(self, seconds: float, rows: int) -> None:
        """Rows waited from their arrival until their batch was cut."""


@dataclass(slots=True)
class _Batch:
    cut: Cut
    context: NDArray[np.float32]
    sizes: Sequence[int]  # rows that it may be filled up to


class MicroBatcher:
    """Answers due frames. `run` must be running; `submit` waits while too much is queued.

    Two loops as in text-embeddings-inference: `prepare` cuts the next batch and lays out its array
    while the engine, in its own thread, is at the one before. Exactly one batch is prepared ahead:
    rows that come meanwhile make the following one larger, and stay droppable when they grow stale.
    """

    def __init__(
        self,
        engines: Mapping[str, ModelEngine],
        options: BatchOptions,
        observer: Observer,
        *,
        clock_s: Callable[[], float],
        now_ms: Callable[[], int],
        executor: Executor | None = None,
    ) -> None:
        """`clock_s` is monotonic and orders the queue; `now_ms` is the wall clock of the frames."""
        self._all: dict[str, ModelEngine] = {}
        self.use(engines)
        self._options = options
        self._observer = observer
        self._clock_s = clock_s
        self._now_ms = now_ms
        self._executor = executor
        self._queue = DueQueue(options.max_wait_s)
        self._sizes: dict[str, int] = {}  # by model, where memory was short
        self._worked: set[str] = set()
        self._failing: dict[str, tuple[int, str]] = {}  # batches in a row, and why
        self._told: dict[str, float] = {}  # when the log said something last
        self._good: Counter[str] = Counter()  # batches since then
        self._came = asyncio.Event()
        self._left = asyncio.Event()
        self._next: asyncio.Queue[_Batch] = asyncio.Queue(1)
        self._in_work = 0

    def use(self, engines: Mapping[str, ModelEngine]) -> None:
        """Forecast with these from now on. What waits for another engine is still answered by it."""
        self.engines = dict(engines)
        self._all = {**self._all, **engines}
        # Models that mean the same engine share batches, under the name of the first one.
        first = {id(engine): name for name, engine in list(engines.items())[::-1]}
        self._names = {name: first[id(engine)] for name, engine in engines.items()}
        self._lengths = {name: lengths(engine.max_context) for name, engine in engines.items()}

    @property
    def waiting(self) -> int:
        """Rows that were submitted and are not answered."""
        return self._queue.rows + self._in_work

    @property
    def failing(self) -> str | None:
        """Why an engine forecasts nothing at all, if one does."""
        return next((f"model {name}: {why}" for name, (_, why) in self._failing.items()), None)

    async def submit(self, frame: DueFrame, answered: Callable[[Request], None]) -> None:
        """Queue a frame; `answered` is called once in this loop, also when no row has a forecast.

        A frame larger than the limit passes when nothing else waits.
        """
        rows = len(frame.row)
        while self.waiting and self.waiting + rows > self._options.queue_limit:
            self._left.clear()
            await self._left.wait()
        request = Request.of(frame, len(self._options.levels), answered)
        engine = self.engines.get(frame.model)
        if engine is None or not rows:
            if rows:
                self._observer.dropped("unknown_model", rows)
                self._tell_once_a_minute(
                    f"model {frame.model}",
                    f"windows ask for model {frame.model}, which no pipeline of this process names: there "
                    "is no forecast. Give all roles the same pipelines",
                )
            answered(request)
            return
        name = self._names[frame.model]
        # Steps of one pass cost the same whether they are asked for or not.
        horizon = -(-frame.horizon // engine.horizon_step) * engine.horizon_step
        ladder = self._lengths[name]
        rung = np.searchsorted(ladder, np.minimum(request.known, ladder[-1]))
        now_s = self._clock_s()
        for r in np.unique(rung).tolist():
            part = Part(request, np.flatnonzero(rung == r))
            self._queue.put(Key(name, horizon, int(ladder[r])), part, now_s)
        self._came.set()

    async def run(self) -> None:
        """Prepare and run batches until cancelled. What is not answered then stays unanswered."""
        own = ThreadPoolExecutor(1, "engine") if self._executor is None else None
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._prepare())
                group.create_task(self._work(own or self._executor))
        finally:
            if own is not None:
                own.shutdown(wait=False, cancel_futures=True)

    async def _prepare(self) -> None:
        while True:
            cut = await self._cut()
            for part in cut.stale:
                self._observer.dropped("stale", len(part))
                self._close(part)
            if cut.stale:
                self._tell_once_a_minute(
                    "stale",
                    "contexts wait for longer than they are of use and are dropped: forecasts do not keep up",
                )
            if not cut.parts:
                continue
            now_s = self._clock_s()
            for part in cut.parts:
                self._observer.waited(now_s - part.request.queued_s, len(part))
            await self._next.put(self._lay_out(cut))
            # Not before the engine took this one: the next batch is cut as late as possible.
            await self._next.join()

    def _lay_out(self, cut: Cut) -> _Batch:
        fixed = self._all[cut.key.model].fixed_shapes
        sizes = batch_sizes(self._size(cut.key)) if fixed else ()
        return _Batch(cut, stack(cut.parts, cut.key.length), sizes)

    async def _cut(self) -> Cut:
        while True:
            now_s = self._clock_s()
            wait_s = self._queue.ready_in_s(now_s, self._size)
            if wait_s is not None and wait_s <= 0:
                cut = self._queue.cut(now_s, self._now_ms(), self._size)
                if cut is not None:
                    self._in_work += cut.rows + sum(map(len, cut.stale))
                    return cut
            self._came.clear()
            try:
                await asyncio.wait_for(self._came.wait(), wait_s)
            except TimeoutError:
                pass

    async def _work(self, executor: Executor | None) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = await self._next.get()
            self._next.task_done()
            key = batch.cut.key
            engine = self._all[key.model]
            begin_s = self._clock_s()
            outcome = await loop.run_in_executor(
                executor, forecast, engine, batch.context, key.horizon, self._options.levels, batch.sizes
            )
            self._tell(batch, self._clock_s() - begin_s)
            self._learn_size(key.model, outcome)
            self._answer(batch.cut.parts, outcome)
            self._judge(key.model, outcome)

    def _tell(self, batch: _Batch, seconds: float) -> None:
        rows, key = batch.cut.rows, batch.cut.key
        filled = next((size for size in batch.sizes if size >= rows), rows)
        steps = filled * key.length
        self._observer.batch(key.model, rows, seconds, steps, steps - batch.cut.known)

    def _answer(self, parts: list[Part], outcome: Outcome) -> None:
        self._observer.forecast(int(outcome.ok.sum()))
        for reason, rows in outcome.failed.items():
            self._observer.dropped(reason, rows)
        at = 0
        for part in parts:
            source = slice(at, at + len(part))
            part.request.forecast[part.rows] = outcome.forecast[source, : part.request.frame.horizon]
            part.request.ok[part.rows] = outcome.ok[source]
            at += len(part)
            self._close(part)

    def _judge(self, model: str, outcome: Outcome) -> None:
        """
        Raises:
            EngineLostError: the engine worked, and has not for some batches: a new process may help.
        """
        if outcome.works is not False:
            self._failing.pop(model, None)
            if outcome.works:
                self._worked.add(model)
            return
        count = self._failing.get(model, (0, ""))[0] + 1
        self._failing[model] = count, outcome.error
        if model in self._worked and count >= _LOST_AFTER:
            raise EngineLostError(
                f"model {model} worked, and has forecast nothing in {count} batches: {outcome.error}"
            )

    def _tell_once_a_minute(self, key: str, text: str) -> None:
        now_s = self._clock_s()
        if now_s - self._told.get(key, -_TELL_S) >= _TELL_S:
            self._told[key] = now_s
            log.warning("%s", text)

    def _close(self, part: Part) -> None:
        self._in_work -= len(part)
        if not self.waiting:
            self._all = dict(self.engines)  # those that are gone were needed for what waited
        self._left.set()
        part.request.close(len(part))

    def _size(self, key: Key) -> int:
        return self._sizes.get(key.model, self._options.max_batch)

    def _learn_size(self, model: str, outcome: Outcome) -> None:
        """Smaller batches where memory was short, and larger ones again when all is well for long."""
        if outcome.fits is not None:
            self._sizes[model] = outcome.fits
            self._good[model] = 0
        elif model in self._sizes:
            self._good[model] += 1
            if self._good[model] >= _GROW_AFTER:
                self._good[model] = 0
                self._sizes[model] = min(2 * self._sizes[model], self._options.max_batch)
