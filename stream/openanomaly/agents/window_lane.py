"""A lane: one partition of a window worker, its inputs in one order and its writes in another."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from openanomaly.core.frames import ForecastFrame, SampleFrame
from openanomaly.core.windows.inputs import Inputs, Item, Tick
from openanomaly.core.windows.output import Checkpoint, Output
from openanomaly.core.windows.partition import Partition
from openanomaly.core.windows.plan import BlockPlan
from openanomaly.core.windows.records import Record
from openanomaly.core.windows.replan import replan
from openanomaly.errors import MalformedFrameError

_WAITING = {"samples": 16, "forecasts": 128}
_WRITES = 4
_EVICT_MS = 60_000

Topic = Literal["samples", "forecasts"]
Change = Callable[[Partition, int], Output]
"""What happens to a partition at a time of the wall clock (ms), and what is to be written for it."""


@dataclass(slots=True)
class Raw:
    """A record as it came: decoded only when it is its turn."""

    value: bytes
    written_ms: int
    is_set_aside: bool = False
    """It crashed its worker too often: passed over, when it is its turn."""


class Writer(Protocol):
    """Where a lane's outputs go; every call returns once the broker has all of it."""

    async def state(self, partition: int, records: Sequence[Record]) -> None: ...
    async def ring(self, partition: int, records: Sequence[Record]) -> None: ...
    async def results(self, partition: int, output: Output) -> None: ...
    async def reject(self, topic: str, partition: int, item: Item[Raw], error: Exception) -> None: ...
    async def note(self, topic: str, partition: int, item: Item[Raw], error: Exception) -> None: ...
    async def release(self, partition: int, samples: int, forecasts: int) -> None: ...
    def took(self, samples: int, waited_s: float) -> None:
        """A frame was taken, so long after it was written."""


class Lane:
    """Feeds one partition and writes what it says, in order.

    Two tasks: `feed` takes inputs and computes, `write` sends outputs, so that computing goes on
    while the broker confirms. Both queues are bounded by count of frames.
    """

    def __init__(
        self,
        partition: Partition,
        writer: Writer,
        checkpoint_s: float,
        idle_ttl_ms: int,
        first_checkpoint_s: float,
        crashed: Callable[[BaseException], None],
        clock: Callable[[], float] = time.time,
        read_on: Callable[[Topic, bool], None] = lambda topic, on: None,
    ) -> None:
        """`read_on` is told whether more of a topic of this partition should be read."""
        self.partition = partition
        self.inputs: Inputs[Raw] = Inputs()
        self.busy_s = 0.0
        self.checkpoints = 0
        self._writer = writer
        self._checkpoint_s = checkpoint_s
        self._next_checkpoint = clock() + first_checkpoint_s
        self._idle_ttl_ms = idle_ttl_ms
        self._ticked_ms = self._next_evict_ms = 0
        self._is_ending = self._has_left = False
        self._crashed = crashed
        self._clock = clock
        self._read_on = read_on
        self._held: set[Topic] = set()
        self._changes: deque[Change] = deque()
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._outputs: asyncio.Queue[Output | Checkpoint] = asyncio.Queue(_WRITES)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def is_replaying(self) -> bool:
        return self.partition.next_mark() is not None

    def start(self) -> None:
        if self.partition.opening:
            self._outputs.put_nowait(self.partition.opening)
        for work in (self._feed, self._write):
            task = asyncio.create_task(work(), name=f"{work.__name__} {self.partition.number}")
            task.add_done_callback(self._done)
            self._tasks.append(task)

    def _done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._crashed(error)

    async def stop(self, *, flush: bool) -> None:
        """End the tasks; with `flush`, write what is computed and a last checkpoint first."""
        # Who waits for room brings the records of other partitions too, and must not wait for ever.
        self._has_left = True
        self._room.set()
        if not self._tasks:
            return
        feed, write = self._tasks
        if flush and not feed.done() and not write.done():
            flushed = asyncio.create_task(self._flush(feed))
            await asyncio.wait({flushed, write}, return_when=asyncio.FIRST_COMPLETED)
            flushed.cancel()
        feed.cancel()
        write.cancel()
        await asyncio.gather(feed, write, return_exceptions=True)
        self._tasks.clear()

    async def _flush(self, feed: asyncio.Task[None]) -> None:
        # Not cancelled: what it has computed is in the row state, and must be written before that.
        self._is_ending = True
        self._wake.set()
        await asyncio.wait({feed})
        if feed.exception() is None:  # else an input is half taken: what is written must not pass it
            await self._put_checkpoint()
            await self._outputs.join()

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    # -- inputs --------------------------------------------------------------------------------

    async def offer_samples(self, offset: int, raw: Raw) -> None:
        """Hand over a record of samples; waits while too many wait already."""
        await self._offer("samples", Item(offset, raw))

    async def offer_forecasts(self, offset: int, raw: Raw) -> None:
        await self._offer("forecasts", Item(offset, raw))

    async def _offer(self, topic: Topic, item: Item[Raw]) -> None:
        """Queue a record. Whoever brings it brings those of other partitions too, in one line.

        A lane that repeats its run may wait for one topic while the other one waits for it; if that one's
        line stood still here, the lanes of two partitions could wait for each other for ever. So it is not
        held up; its partition is not read on instead, and what is on its way still comes.
        """
        waiting = self._waiting(topic)
        while len(waiting) >= _WAITING[topic] and not self.is_replaying and not self._has_left:
            self._room.clear()
            await self._room.wait()
        if self._has_left:
            return
        waiting.append(item)
        if len(waiting) >= _WAITING[topic] and topic not in self._held:
            self._held.add(topic)
            self._read_on(topic, False)
        self._wake.set()

    def _waiting(self, topic: Topic) -> deque[Item[Raw]]:
        return self.inputs.samples if topic == "samples" else self.inputs.forecasts

    def _make_room(self) -> None:
        self._room.set()
        for topic in tuple(self._held):
            if len(self._waiting(topic)) <= _WAITING[topic] // 2:
                self._held.remove(topic)
                self._read_on(topic, True)

    def reopened(self) -> None:
        """Every partition is read on, as after a rebalance that left us this one."""
        self._held.clear()

    def offer_tick(self, now_ms: int, through: int) -> None:
        self.inputs.offer_tick(now_ms, through)
        self._wake.set()

    def change(self, change: Change) -> None:
        """Change the partition before the next input; behind the run that is repeated, if one is."""
        self._changes.append(change)
        self._wake.set()

    def replan(self, plans: Sequence[BlockPlan]) -> None:
        """Watch other pipelines."""
        self.change(lambda partition, now_ms: replan(partition, plans, now_ms))

    async def _feed(self) -> None:
        while not self._is_ending:
            if self._changes and not self.is_replaying:
                await self._change()
            step = self.inputs.next(self.partition)
            if step is None:
                self._wake.clear()
                await self._wake.wait()
                continue
            self._make_room()
            started = time.perf_counter()
            output = await self._take(*step)
            self.busy_s += time.perf_counter() - started
            if output:
                await self._outputs.put(output)
            if self._is_checkpoint_due(self._clock()):
                await self._checkpoint()
            await asyncio.sleep(0)  # other lanes, and the tasks that confirm

    async def _take(self, kind: str, what: Item[Raw] | Tick) -> Output | None:
        if isinstance(what, Tick):
            return self._take_tick(what)
        topic = "samples" if kind == "samples" else "forecasts"
        at = self.partition.position
        if what.offset < (at.samples if topic == "samples" else at.forecasts):
            return None  # taken before a rebalance that left us the partition
        if what.value.is_set_aside:
            self.partition.skip(topic, what.offset)
            return None
        try:
            return self._put(topic, what)
        except MalformedFrameError as error:
            await self._writer.reject(topic, self.partition.number, what, error)
            self.partition.skip(topic, what.offset)
        except Exception as error:
            # Half of it may have been taken: what is in memory must not be used any more. So this is
            # a crash also when it is noted for the last time, and the next start passes over it.
            await self._writer.note(topic, self.partition.number, what, error)
            raise
        return None

    def _put(self, topic: str, item: Item[Raw]) -> Output | None:
        if topic == "samples":
            samples = SampleFrame.decode(item.value.value)
            self._writer.took(samples.row.size, self._clock() - item.value.written_ms / 1000)
            return self.partition.put(samples, item.offset, self._now_ms())
        frame = ForecastFrame.decode(item.value.value)
        self.partition.forecast(frame, item.offset, item.value.written_ms)
        return None

    def _take_tick(self, tick: Tick) -> Output:
        output = self.partition.tick(tick.now_ms)
        self._ticked_ms = tick.now_ms
        if not self.is_replaying:
            output.scores += self.partition.census(tick.now_ms)
        return output

    def _is_checkpoint_due(self, now: float) -> bool:
        """Also where the clock was set back: else none would be written until it is where it had been."""
        return now >= self._next_checkpoint or now < self._next_checkpoint - self._checkpoint_s

    async def _checkpoint(self) -> None:
        self._next_checkpoint = self._clock() + self._checkpoint_s
        await self._put_checkpoint()
        # Series lose their rows right behind a checkpoint only. A recovery that began before it would find
        # them gone, take their steps for those of new series, and judge them a second time.
        if self._ticked_ms >= self._next_evict_ms and not self.is_replaying:
            self._next_evict_ms = self._ticked_ms + _EVICT_MS
            if gone := self.partition.evict(self._ticked_ms, self._idle_ttl_ms):
                await self._outputs.put(gone)

    async def _put_checkpoint(self) -> None:
        if groups := self.partition.groups_so_far(self._now_ms()):
            await self._outputs.put(groups)
        await self._outputs.put(self.partition.checkpoint(self._now_ms()))

    async def _change(self) -> None:
        """All that waits, between two checkpoints without an input between: a recovery begins on one side."""
        await self._checkpoint()
        while self._changes:
            await self._outputs.put(self._changes.popleft()(self.partition, self._now_ms()))
        await self._checkpoint()

    async def written(self) -> None:
        """Wait until everything computed so far is written."""
        await self._outputs.join()

    # -- outputs -------------------------------------------------------------------------------

    async def _write(self) -> None:
        """Send outputs in their order; what others see only after what recovery needs."""
        number = self.partition.number
        held: Output | Checkpoint | None = None
        while True:
            item = held or await self._outputs.get()
            held, taken = None, 1
            if isinstance(item, Output):
                # What waits goes along: a round of writes costs the same for one as for some. But not
                # what has catalogue records: they may take rows that are in the columns before them.
                while held is None and not self._outputs.empty():
                    after = self._outputs.get_nowait()
                    if isinstance(after, Checkpoint) or after.catalogue:
                        held = after
                    else:
                        item.add(after)
                        taken += 1
            if isinstance(item, Checkpoint):
                await self._writer.state(number, item.records)
                # Steps behind the checkpoint were judged without the forecasts that it gave up. A recovery
                # must not find those again, so it must not begin before, once such a step was shown.
                await self._writer.release(number, item.samples, item.forecasts)
                self.checkpoints += 1
            else:
                if item.catalogue:
                    await self._writer.state(number, item.catalogue)
                if item.ring:
                    await self._writer.ring(number, item.ring)
                if item.due or item.scores or item.groups:
                    await self._writer.results(number, item)
            for _ in range(taken):
                self._outputs.task_done()
