"""The embedded broker against a few lists, over any order of what can happen to it."""

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from logs import COMPACT, KEPT, PLAIN, everything
from openanomaly.broker.embedded.broker import Broker

SPECS = (PLAIN, KEPT, COMPACT)
PLACES = [(spec.name, partition) for spec in SPECS for partition in range(spec.partitions)]
GROUPS = ("a", "b")
places = st.sampled_from(PLACES)
keys = st.sampled_from([None, b"x", b"y"])
sizes = st.sampled_from([None, 0, 5, 4095, 4096, 20_000])


class Kept(NamedTuple):
    offset: int
    at: float
    key: bytes | None
    value: bytes | None


class Log(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.now = 1_000_000.0
        self.loop = asyncio.new_event_loop()
        self.records: dict[tuple[str, int], list[Kept]] = {place: [] for place in PLACES}
        self.following = dict.fromkeys(PLACES, 0)
        self.committed: dict[tuple[str, tuple[str, int]], int] = {}
        self.run(self.open())

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    async def open(self) -> None:
        self.broker = Broker.open(self.folder, synchronous="NORMAL", clock=lambda: self.now)
        for spec in SPECS:
            await self.broker.create(spec)

    def teardown(self) -> None:
        self.run(self.broker.release())
        self.loop.close()
        shutil.rmtree(self.folder)

    @rule(items=st.lists(st.tuples(places, keys, sizes), min_size=1, max_size=8))
    def append(self, items: list[tuple[tuple[str, int], bytes | None, int | None]]) -> None:
        rows = []
        for i, (place, key, size) in enumerate(items):
            value = None if size is None else bytes([self.following[place] % 256, i])[:size].ljust(size, b"v")
            rows.append((place, key, value))

        async def go() -> list[int]:
            return await asyncio.gather(
                *(self.broker.append(*place, key, value) for place, key, value in rows)
            )

        for (place, key, value), offset in zip(rows, self.run(go()), strict=True):
            assert offset == self.following[place]
            self.following[place] += 1
            kept = self.records[place]
            if place[0] == COMPACT.name and key is not None:
                kept = [record for record in kept if record.key != key]
            self.records[place] = [*kept, Kept(offset, self.now, key, value)]

    @rule(group=st.sampled_from(GROUPS), place=places, share=st.floats(0, 1))
    def commit(self, group: str, place: tuple[str, int], share: float) -> None:
        offset = int(self.following[place] * share)
        self.run(self.broker.commit(group, {place: offset}))
        self.committed[group, place] = max(offset, self.committed.get((group, place), 0))

    @rule(seconds=st.sampled_from([0, 1, 1800, 4000]))
    def tidy(self, seconds: float) -> None:
        self.now += seconds
        self.run(self.broker.tidy())
        for place, kept in self.records.items():
            if place[0] != PLAIN.name:
                continue
            read = min((o for (_, p), o in self.committed.items() if p == place), default=0)
            self.records[place] = [
                r for r in kept if r.offset >= read and int(r.at * 1000) >= int((self.now - 3600) * 1000)
            ]

    @rule()
    def reopen(self) -> None:
        self.run(self.broker.release())
        self.run(self.open())

    @rule(place=places, share=st.floats(0, 1))
    def read_from_the_middle(self, place: tuple[str, int], share: float) -> None:
        start = int(self.following[place] * share)
        found = self.run(everything(self.broker, *place, start))
        assert [r.offset for r in found] == [r.offset for r in self.records[place] if r.offset >= start]

    @invariant()
    def holds_what_it_should(self) -> None:
        earliest = self.run(self.broker.earliest(PLACES))
        for place, kept in self.records.items():
            found = self.run(everything(self.broker, *place))
            assert [(r.offset, r.timestamp_ms, r.key, r.value) for r in found] == [
                (r.offset, int(r.at * 1000), r.key, r.value) for r in kept
            ]
            assert self.broker.high_water(place) == self.following[place]
            assert earliest[place] == (kept[0].offset if kept else self.following[place])
        for (group, place), offset in self.committed.items():
            assert self.broker.committed(group, place) == offset


TestLog = Log.TestCase
TestLog.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
