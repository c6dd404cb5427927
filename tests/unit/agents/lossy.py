"""A window worker on a broker in memory, of which any await can be the last.

Everything of the worker is real: agents, ledgers, lanes, tables and their store. What Faust's loop
does (feed changelogs, open streams, commit what was released) is done here, on a `Line` to the
logs that a test can cut.
"""

import asyncio
import itertools
import random
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest import mock

from faust.types import TP

from openanomaly.agents import window
from openanomaly.agents.window import WindowWorker
from openanomaly.agents.window_lane import Lane
from openanomaly.broker.dead_letter import DeadLetters
from openanomaly.broker.faust_app import BrokerConfig, make_app
from openanomaly.broker.topics import topics
from openanomaly.core.frames import DueFrame, SampleFrame, ScoreFrame
from openanomaly.core.group_frames import GroupFrame
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.windows.partition import Partition
from openanomaly.core.windows.records import Record
from openanomaly.settings import WindowSettings
from openanomaly.telemetry import Telemetry
from unit.core.windows.scenario import TTL_MS
from unit.core.windows.world import Broker, Crash, Event, Infer, Samples, TickNow

NAMES = topics("t", 1)
RING, STATE = "t-window-ring-changelog", "t-window-state-changelog"
SAMPLES, FORECASTS = TP(NAMES.samples.name, 0), TP(NAMES.forecasts.name, 0)
CHECKPOINT_S = 25
_CALM = 25
"""Turns of the loop without a sign of life, after which a worker waits for something."""


class Line:
    """What one life of a worker has of the broker: producer, consumer and, through `stream`, records.

    A request travels for some turns of the loop, those of one log in their order, and so does its answer.
    Sending one, and an answer that comes, are the ends of awaits: at the one numbered `fuse` the line
    is cut. What had not arrived is lost, or, if the line `keeps`, arrives without an answer.
    """

    def __init__(self, broker: Broker, fuse: int, *, keeps: bool, seed: int) -> None:
        self.awaits = 0
        self.is_cut = False
        self.begin = {SAMPLES: broker.committed[0], FORECASTS: broker.committed[1]}
        self.broker = self  # of the transport: for who reads dead letters
        self.news = asyncio.Event()
        self._paused: set[TP] = set()
        self._commits: dict[TP, asyncio.Future[None]] = {}
        self._logs = broker
        self._fuse, self._keeps = fuse, keeps
        self.random = random.Random(seed)
        self._sent: dict[str, deque[tuple[Callable[[], Any], asyncio.Future[Any]]]] = {}
        self._answers: dict[str, deque[tuple[Any, asyncio.Future[Any]]]] = {}

    @property
    def is_busy(self) -> bool:
        return bool(self._sent or self._answers)

    def request(self, log: str, work: Callable[[], Any]) -> "asyncio.Future[Any]":
        """The result of `work` at the broker, if this is ever known."""
        answer = asyncio.get_running_loop().create_future()
        if not self.is_cut:
            self._sent.setdefault(log, deque()).append((work, answer))
            self._await()
        return answer

    def step(self) -> None:
        """One request arrives, or one answer."""
        if self.is_cut or not self.is_busy:
            return
        if (log := self.random.choice([*self._sent, *self._answers])) in self._sent:
            work, future = _pop(self._sent, log)
            self._answers.setdefault(f"answers {log}", deque()).append((work(), future))
            return
        answer, future = _pop(self._answers, log)
        self._await()
        if not self.is_cut and not future.done():
            future.set_result(answer)

    def _await(self) -> None:
        self.awaits += 1
        if self.awaits == self._fuse:
            self.cut()

    def cut(self) -> None:
        self.is_cut = True
        for sent in self._sent.values() if self._keeps else ():
            for work, _ in sent:
                work()
        self._sent.clear()
        self._answers.clear()

    # -- what the worker takes for its producer and its consumer ---------------------------------

    async def maybe_start(self) -> None:
        """It is."""

    async def send(
        self, topic: str, key: bytes, value: bytes, partition: int, timestamp: None, headers: None
    ) -> "asyncio.Future[Any]":
        """As Kafka's producer: every record by itself."""
        return self.request(topic, lambda: self._append(topic, key, value))

    def _append(self, topic: str, key: bytes, value: bytes) -> Any:
        logs = self._logs
        taken: dict[str, tuple[list[Any], Callable[[], Any]]] = {
            NAMES.due.name: (logs.due, lambda: [DueFrame.decode(value)]),
            NAMES.scores.name: (logs.scores, lambda: [ScoreFrame.decode(value)]),
            NAMES.groups.name: (logs.groups, lambda: GroupFrame.decode(value).counts),
            RING: (logs.ring, lambda: [Record(key, value)]),
            STATE: (logs.state, lambda: [Record(key, value)]),
        }
        log, items = taken[topic]  # nothing here is a dead letter
        log.extend(items())
        return SimpleNamespace(offset=len(log) - 1)

    def release(self, tp: TP, offset: int) -> None:
        """Committed a little later, samples and forecasts each by themselves."""
        self._commits[tp] = self.request(f"offsets of {tp.topic}", lambda: self._commit(tp, offset))

    async def committed_through(self, offsets: dict[TP, int]) -> None:
        await asyncio.gather(*(self._commits[tp] for tp in offsets))

    def _commit(self, tp: TP, offset: int) -> None:
        samples, forecasts = self._logs.committed
        self._logs.committed = (offset, forecasts) if tp == SAMPLES else (samples, offset)

    async def begin_offsets(self, tps: Iterable[TP]) -> dict[TP, int]:
        return await self.request("questions", lambda: {tp: self.begin[tp] for tp in tps})

    async def highwaters(self, *tps: TP) -> dict[TP, int]:
        return await self.request("questions", lambda: {tp: len(self._log(tp)) for tp in tps})

    async def earliest(self, partitions: Sequence[tuple[str, int]]) -> dict[tuple[str, int], int]:
        return dict.fromkeys(partitions, 0)

    def high_water(self, partition: tuple[str, int]) -> int:
        assert partition == (NAMES.dead_letter.name, 0)
        return 0

    def _log(self, tp: TP) -> list[bytes]:
        return self._logs.samples if tp == SAMPLES else self._logs.forecasts

    def pause_partitions(self, tps: Iterable[TP]) -> None:
        self._paused |= set(tps)

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        self._paused -= set(tps)
        self.news.set()

    def stream(self, tp: TP, generation: int) -> Any:
        """What Faust gives an agent."""

        async def events() -> AsyncIterator[Any]:
            offset, log = self.begin[tp], self._log(tp)
            while True:
                while offset < len(log) and tp not in self._paused:
                    written_s = self._logs.written_ms[offset] / 1000 if tp == FORECASTS else 0.0
                    message = SimpleNamespace(
                        topic=tp.topic, partition=0, offset=offset, value=log[offset], timestamp=written_s,
                        generation_id=generation,
                    )  # fmt: skip
                    yield SimpleNamespace(message=message)
                    offset += 1
                self.news.clear()
                await self.news.wait()

        return SimpleNamespace(noack=lambda: SimpleNamespace(events=events))


def _pop(queues: "dict[str, deque[tuple[Any, asyncio.Future[Any]]]]", log: str) -> tuple[Any, Any]:
    first = queues[log].popleft()
    if not queues[log]:
        del queues[log]
    return first


class Life:
    """A worker from its start to its end."""

    def __init__(self, pipelines: Sequence[Pipeline], broker: Broker, line: Line) -> None:
        app = make_app("window", BrokerConfig("embedded://nowhere", partitions=1, topic_prefix="t"))
        app.producer = app.consumer = app.producer_transport = line
        app.consumer_generation_id = 1
        settings = WindowSettings(checkpoint_s=CHECKPOINT_S, idle_ttl_s=TTL_MS / 1000)
        letters = DeadLetters(app, NAMES)
        self.worker = WindowWorker(app, settings, pipelines, NAMES, Telemetry().window, letters, emit="all")
        self.line = line
        self._broker = broker
        self._lanes: list[Lane] = []
        self._tasks = [
            asyncio.create_task(work)
            for work in (
                self._recover(),
                self.worker._read_samples(line.stream(SAMPLES, 1)),
                self.worker._read_forecasts(line.stream(FORECASTS, 1)),
            )
        ]

    async def _recover(self) -> None:
        """Both changelogs, in batches that come as they like."""
        last = {record.key: offset for offset, record in enumerate(self._broker.state)}  # compacted
        state = [(offset, self._broker.state[offset]) for offset in sorted(last.values())]
        left = {RING: list(enumerate(self._broker.ring)), STATE: state}
        tables = {RING: self.worker._ring.data, STATE: self.worker._writes._state.data}
        while left:
            topic = self.line.random.choice(sorted(left))
            batch, left[topic] = left[topic][:40], left[topic][40:]
            events = [
                SimpleNamespace(
                    message=SimpleNamespace(topic=topic, partition=0, offset=at, key=r.key, value=r.value)
                )
                for at, r in batch
            ]
            tables[topic].apply_changelog_batch(events, None, None)
            if not left[topic]:
                del left[topic]
            await self.line.request(topic, lambda: None)
        for topic, table in tables.items():
            await table.on_recovery_completed({TP(topic, 0)}, set())

    @property
    def partition(self) -> Partition:
        return self.worker.partitions[0]

    @property
    def checkpoints(self) -> int:
        return sum(lane.checkpoints for lane in self._lanes)

    async def begin(self, turns: int | None) -> None:
        await self.until(lambda: self.worker.is_recovered)
        self._lanes = list(self.worker.lanes.values())
        await self.take(None, turns)

    async def take(self, tick_ms: int | None = None, turns: int | None = None) -> None:
        """Take every record there is, and a tick behind them; or what comes of it in some turns."""
        self.line.news.set()
        if tick_ms is not None:
            self.worker.lanes[0].offer_tick(tick_ms, len(self._broker.samples))
        if turns is not None:
            end = itertools.count()
            await self.until(lambda: next(end) == turns)
            return
        await self.until()
        at = self.partition.position
        assert at[:2] == (len(self._broker.samples), len(self._broker.forecasts))
        assert tick_ms is None or at.tick_ms >= tick_ms

    async def until(self, is_done: Callable[[], bool] = lambda: False) -> None:
        """Time passes until something is so, or nothing happens any more.

        Raises:
            Crash: the line was cut.
        """
        calm, seen = 0, None
        while not is_done() and calm < _CALM:
            await asyncio.sleep(0)
            self.line.step()
            if self.line.is_cut:
                raise Crash
            if self.worker.app.crashed:
                raise self.worker.app.crash_reason
            for task in self._tasks:
                if task.done():
                    task.result()
            held = self.worker.partitions.get(0)
            now = (self.line.awaits, self.line.is_busy, None if held is None else held.position)
            calm = calm + 1 if now == seen and not self.line.is_busy else 0
            seen = now

    async def stop(self) -> None:
        """As a process that is asked to."""
        stopping = asyncio.create_task(self.worker.stop())
        self._tasks.append(stopping)
        await self.until(stopping.done)
        await self.until()  # offsets are committed

    async def end(self) -> None:
        """As a process that is killed: nothing it does any more is seen."""
        self.line.cut()
        tasks = [
            *self._tasks,
            *self.worker.app._futures,
            *(task for lane in self._lanes for task in lane._tasks),
        ]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Play:
    """Events happen to a worker, which comes back whenever it is lost.

    Args:
        fuses: at which of its awaits each life ends; the lives beyond go on.
        keeps: what was sent and not answered at the end of a life is there for the next.
        turns: of the loop, after which the next events come; None waits until all is taken and written.
    """

    def __init__(
        self,
        pipelines: Sequence[Pipeline],
        fuses: Iterable[int] = (),
        *,
        keeps: bool = False,
        turns: int | None = None,
    ) -> None:
        self.broker = Broker()
        self.counts: Counter[str] = Counter()
        self.checkpoints = 0
        self.lives: list[int] = []
        """Of how many awaits each was."""
        self.recoveries: list[int] = []
        """Of how many awaits each recovery was that came to its end, its repetition of the run included."""
        self._pipelines = pipelines
        self._fuses, self._keeps, self._turns = list(fuses), keeps, turns
        self._life: Life | None = None

    async def run(self, events: Iterable[Event]) -> "Play":
        with mock.patch.object(window, "Lane", partial(Lane, clock=lambda: self.broker.now_ms / 1000)):
            for batch in batches(events):
                self.broker.now_ms = max(self.broker.now_ms, batch.now_ms)
                self.broker.samples += batch.samples
                self.broker.answer(batch.answers)
                await self._survive(lambda life, tick_ms=batch.tick_ms: life.take(tick_ms, self._turns))
            await self._survive(Life.take)
            await self._survive(Life.stop)
            await self._end()
            # What the broker holds is all there is: nothing of a life is in the next.
            self.partition = (await self._survive(Life.take)).partition
            await self._end()
        return self

    async def _survive(self, act: Callable[[Life], Awaitable[None]]) -> Life:
        while True:
            try:
                life = self._life or await self._begin()
                await act(life)
                return life
            except Crash:
                await self._end()

    async def _begin(self) -> Life:
        fuse = self._fuses.pop(0) if self._fuses else -1
        line = Line(self.broker, fuse, keeps=self._keeps, seed=len(self.lives))
        self._life = Life(self._pipelines, self.broker, line)
        await self._life.begin(self._turns)
        self.recoveries.append(line.awaits)
        return self._life

    async def _end(self) -> None:
        life, self._life = self._life, None
        if life is None:
            return
        await life.end()
        self.lives.append(life.line.awaits)
        self.counts += life.worker.counts()
        self.checkpoints += life.checkpoints


@dataclass
class Batch:
    """What comes at once: answers of the model, samples, and behind them a tick."""

    now_ms: int = 0
    answers: int = 0
    samples: list[bytes] = field(default_factory=list)
    tick_ms: int | None = None


def batches(events: Iterable[Event]) -> Iterator[Batch]:
    """Events as they come at once. Of the time of checkpoints and evictions a lane judges by itself."""
    batch = Batch()
    for event in events:
        if isinstance(event, Infer):
            yield batch
            # Answers are a batch of their own: the order of samples and forecasts is an input.
            yield replace(batch, answers=event.frames, samples=[])
            batch = Batch(batch.now_ms)
        elif isinstance(event, Samples):
            batch.samples.append(event.frame)
            batch.now_ms = max(batch.now_ms, SampleFrame.decode(event.frame).received_ms)
        elif isinstance(event, TickNow):
            batch.now_ms, batch.tick_ms = max(batch.now_ms, event.now_ms), event.now_ms
            yield batch
            batch = Batch(batch.now_ms)
    yield batch
