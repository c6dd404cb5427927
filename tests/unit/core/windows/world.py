"""A broker that can lose its worker at any write, and a worker that does what the agent does."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from openanomaly.core.frames import DueFrame, ForecastFrame, SampleFrame, ScoreFrame
from openanomaly.core.group_frames import GroupCounts
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.scoring import LEVELS
from openanomaly.core.windows import state_pages
from openanomaly.core.windows.admission import Budget
from openanomaly.core.windows.inputs import Inputs, Item, Tick
from openanomaly.core.windows.output import Checkpoint, Output
from openanomaly.core.windows.partition import Partition
from openanomaly.core.windows.plan import plan
from openanomaly.core.windows.records import Record
from openanomaly.core.windows.replan import replan


class Crash(Exception):
    """The worker is gone."""


class Samples(NamedTuple):
    frame: bytes


class Infer(NamedTuple):
    """The model answers what has been asked since the last time, of at most `frames` frames."""

    frames: int = 1_000


class TickNow(NamedTuple):
    now_ms: int


class CheckpointNow(NamedTuple):
    now_ms: int


class EvictNow(NamedTuple):
    now_ms: int
    ttl_ms: int


class ReplanNow(NamedTuple):
    now_ms: int
    pipelines: tuple[Pipeline, ...]


Event = Samples | Infer | TickNow | CheckpointNow | EvictNow | ReplanNow


@dataclass
class Broker:
    """Durable logs. A write is refused, and the worker lost, when the fuse has burnt down."""

    fuse: int = -1
    writes: int = 0
    samples: list[bytes] = field(default_factory=list)
    forecasts: list[bytes] = field(default_factory=list)
    ring: list[Record] = field(default_factory=list)
    state: list[Record] = field(default_factory=list)
    due: list[DueFrame] = field(default_factory=list)
    scores: list[ScoreFrame] = field(default_factory=list)
    groups: list[GroupCounts] = field(default_factory=list)
    committed: tuple[int, int] = (0, 0)
    answered: int = 0
    asked: set[tuple[int, int, int, int]] = field(default_factory=set)
    now_ms: int = 0
    written_ms: list[int] = field(default_factory=list)
    """When each forecast was written."""

    def write(self, log: list[Any], items: Iterable[Any]) -> None:
        for item in items:
            self._burn()
            log.append(item)

    def commit(self, samples: int, forecasts: int) -> None:
        self._burn()
        self.committed = (samples, forecasts)

    def _burn(self) -> None:
        if self.fuse == 0:
            raise Crash
        self.fuse -= 1
        self.writes += 1

    def answer(self, frames: int) -> None:
        """Forecasts for `frames` due contexts: a function of the context alone.

        What was asked before is answered again and not counted: a crash does not slow the model down. A
        worker that repeats a run may ask for some of the rows only.
        """
        while frames > 0 and self.answered < len(self.due):
            due = self.due[self.answered]
            self.answered += 1
            asked = zip(due.row.tolist(), due.origin.tolist(), strict=True)
            questions = {(due.block, due.forecaster, row, origin) for row, origin in asked}
            frames -= not questions <= self.asked
            self.asked |= questions
            last = np.nan_to_num(due.context.values[:, -1:, None])
            spread = np.nanmax(due.context.values, axis=1) - np.nanmin(due.context.values, axis=1) + 1
            quantiles = last + np.array(LEVELS, np.float32) * spread[:, None, None]
            forecast = np.repeat(quantiles, due.horizon, axis=1).astype(np.float32)
            frame = ForecastFrame.pack(due, np.array(LEVELS, np.float32), forecast)
            self.forecasts.append(frame.encode())
            self.written_ms.append(self.now_ms)

    def said(self) -> dict[tuple[str, bytes, int], tuple[object, ...]]:
        """What was said of each step. A step that was sent twice must have been given one verdict."""
        out: dict[tuple[str, bytes, int], tuple[object, ...]] = {}
        for f in self.scores:
            for i, series in enumerate(f.row.tolist()):
                key = (f.pipeline, f.series.block(series), int(f.timestamp_ms[i]))
                said = (
                    f.score[i], f.value[i], f.reason[i], f.flags[i], *map(repr, f.expected[i].tolist()),
                )  # fmt: skip
                assert out.setdefault(key, said) == said, key
        return out

    def counted(self) -> dict[tuple[str, bytes, int], tuple[int, int]]:
        """By pipeline, group and step: how many series had a score, and were in an episode."""
        most: dict[tuple[str, bytes, int], dict[int, tuple[int, int]]] = defaultdict(dict)
        for counts in self.groups:
            for i in range(len(counts.series)):
                parts = most[counts.pipeline, counts.series.block(i), counts.bucket]
                told = int(counts.scored[i]), int(counts.anomalous[i])
                parts[counts.part] = max(parts.get(counts.part, told), told)
        return {
            key: (sum(scored for scored, _ in parts.values()), sum(odd for _, odd in parts.values()))
            for key, parts in most.items()
        }

    def asked_for(self) -> dict[tuple[int, int, int, int, int], bytes]:
        """What the model was asked, per row and origin; a repeated question must be the same."""
        out: dict[tuple[int, int, int, int, int], bytes] = {}
        for due in self.due:
            for i in range(len(due.row)):
                key = (due.block, due.forecaster, int(due.row[i]), int(due.generation[i]), int(due.origin[i]))
                context = due.context.values[i].tobytes()
                assert out.setdefault(key, context) == context, key
        return out


class Worker:
    """One life of a worker on one partition."""

    def __init__(
        self, broker: Broker, pipelines: Sequence[Pipeline], *, ring_first: bool = True, limit: int = 10_000
    ) -> None:
        self.broker = broker
        self.partition = Partition(0, plan(pipelines), Budget(limit))
        # Compacted: the last record of each key, in the order of the log.
        last = {record.key: i for i, record in enumerate(broker.state)}
        state = [broker.state[i] for i in sorted(last.values())]
        both = (broker.ring, state) if ring_first else (state, broker.ring)
        for log in both:
            for record in log:
                self.partition.restore(record.key, record.value)
        self.partition.start()
        self.partition.seek(*broker.committed, len(broker.samples), len(broker.forecasts))
        self.inputs: Inputs[bytes] = Inputs()
        self._fetched = list(broker.committed)
        self._send(self.partition.opening)

    def drain(self) -> None:
        """Take every input that is there."""
        b, i = self.broker, self.inputs
        i.samples.extend(Item(o, b.samples[o]) for o in range(self._fetched[0], len(b.samples)))
        i.forecasts.extend(Item(o, b.forecasts[o]) for o in range(self._fetched[1], len(b.forecasts)))
        self._fetched = [len(b.samples), len(b.forecasts)]
        while (step := i.next(self.partition)) is not None:
            kind, what = step
            if isinstance(what, Tick):
                self._send(self.partition.tick(what.now_ms))
            elif kind == "samples":
                self._send(self.partition.put(SampleFrame.decode(what.value), what.offset, 0))
            else:
                written_ms = b.written_ms[what.offset]
                self.partition.forecast(ForecastFrame.decode(what.value), what.offset, written_ms)

    def tick(self, now_ms: int) -> None:
        self.inputs.offer_tick(now_ms, len(self.broker.samples))
        self.drain()

    def checkpoint(self, now_ms: int) -> None:
        self._send(self.partition.groups_so_far(now_ms))
        done: Checkpoint = self.partition.checkpoint(now_ms)
        self.broker.write(self.broker.state, done.records)
        self.broker.commit(done.samples, done.forecasts)

    def evict(self, now_ms: int, ttl_ms: int) -> None:
        self._send(self.partition.evict(now_ms, ttl_ms))

    def replan(self, pipelines: Sequence[Pipeline], now_ms: int) -> None:
        self._send(replan(self.partition, plan(pipelines), now_ms))

    def _send(self, output: Output) -> None:
        b = self.broker
        b.write(b.state, output.catalogue)
        b.write(b.ring, output.ring)
        b.write(b.due, output.due)
        b.write(b.scores, output.scores)
        b.write(b.groups, output.groups.counts)


class Play:
    """Events happen to a worker, which comes back whenever it is lost."""

    begun = 0
    """Lives of all plays."""

    def __init__(self, pipelines: Sequence[Pipeline], fuses: Iterable[int] = ()) -> None:
        self.pipelines = pipelines
        self.fuses = list(fuses)
        self.broker = Broker(fuse=self.fuses.pop(0) if self.fuses else -1)
        self.lives = 0
        self.worker = self._begin()

    def _begin(self) -> Worker:
        while True:
            self.lives += 1
            Play.begun += 1
            try:
                return Worker(self.broker, self.pipelines, ring_first=self.lives % 2 == 1)
            except Crash:
                self._burn_anew()

    def _burn_anew(self) -> None:
        self.broker.fuse = self.fuses.pop(0) if self.fuses else -1

    def run(self, events: Iterable[Event]) -> "Play":
        for event in events:
            if not isinstance(event, Samples | Infer):
                self.broker.now_ms = max(self.broker.now_ms, event.now_ms)
            if isinstance(event, Samples):
                self.broker.samples.append(event.frame)
            elif isinstance(event, Infer):
                self.broker.answer(event.frames)
            while True:
                try:
                    self.worker.drain()
                    self._happen(event)
                    break
                except Crash:
                    self._burn_anew()
                    self.worker = self._begin()
        return self

    def _happen(self, event: Event) -> None:
        if isinstance(event, TickNow):
            self.worker.tick(event.now_ms)
        elif isinstance(event, CheckpointNow):
            self.worker.checkpoint(event.now_ms)
        elif isinstance(event, EvictNow):
            self.worker.evict(event.now_ms, event.ttl_ms)
        elif isinstance(event, ReplanNow) and self.pipelines != event.pipelines:
            self.worker.checkpoint(event.now_ms)
            self.pipelines = event.pipelines  # also of who comes after a crash
            self.worker.replan(event.pipelines, event.now_ms)
            self.worker.checkpoint(event.now_ms)

    @property
    def partition(self) -> Partition:
        return self.worker.partition


def rows(partition: Partition) -> dict[tuple[int, bytes], dict[str, bytes]]:
    """All that is known of each series: window, row state and forecasts, as bytes."""
    out: dict[tuple[int, bytes], dict[str, bytes]] = defaultdict(dict)
    for block in partition.blocks.values():
        for row in block.catalogue.live_rows().tolist():
            known = out[block.uid, block.catalogue.labels[row]]
            at, closed = np.array([row]), block.state["closed"][[row]]
            known["window"] = block.ring.windows(at, closed, block.catalogue.born[at]).tobytes()
            known["born"] = block.catalogue.born[at].tobytes()
            for hot in (True, False):
                for owner, name, array in state_pages.state_columns(block, hot):
                    known[f"{owner}.{name}"] = array[row].tobytes()
            for uid, bands in block.bands.items():
                base = block.catalogue.base[at]
                for ahead in range(1, 9):
                    known[f"{uid}+{ahead}"] = bands.at(at, closed + ahead, base).tobytes()
    return out


def differing(found: Mapping[Any, Any], expected: Mapping[Any, Any]) -> list[Any]:
    """Keys of what is not the same in both; the first few."""
    return [k for k in {**found, **expected} if k not in found or found[k] != expected.get(k)][:5]


def same_as_undisturbed(broker: Broker, partition: Partition, calm: Broker, expected: Partition) -> None:
    """What was said and what is known after crashes is what it would have been without."""
    verdicts = differing(broker.said(), calm.said())
    assert not verdicts, verdicts
    found, known = rows(partition), rows(expected)
    assert found.keys() == known.keys()
    columns = [(series, name) for series in known for name in differing(found[series], known[series])]
    assert not columns, columns
    broker.asked_for()  # a question that was asked twice was the same
