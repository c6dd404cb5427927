"""The window role: samples and forecasts in; steps, contexts and scores out.

Two Faust agents read `.samples` and `.forecasts` and hand records to the lane of their partition,
where everything happens (`window_lane.py`). Two tables, `ring` and `state`, stand over the same
blocks and give them changelogs. Offsets are released at checkpoints only.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from faust.types import TP

from openanomaly.agents.emit import EmitChoice
from openanomaly.agents.window_lane import Lane, Raw, Topic
from openanomaly.agents.window_writes import WindowWrites, origin_of, topic_name
from openanomaly.broker.dead_letter import DeadLetters
from openanomaly.broker.faust_app import App, committed_offsets, declare, end_offsets
from openanomaly.broker.ledger import Ledger
from openanomaly.broker.ring_store import changelog_table
from openanomaly.broker.topics import Topics
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.pipelines.selector import Selector
from openanomaly.core.windows.admission import Budget
from openanomaly.core.windows.explain import count, explain
from openanomaly.core.windows.partition import Partition
from openanomaly.core.windows.plan import BlockPlan, plan, ring_retention_s
from openanomaly.core.windows.replan import replan
from openanomaly.errors import (
    ConfigError,
    RejectedError,
    RestartNeededError,
    RetryableError,
)
from openanomaly.settings import WindowSettings
from openanomaly.telemetry import WindowMetrics

log = logging.getLogger(__name__)

_TELL_REFUSED_S = 60.0


class WindowWorker:
    """Owns the partitions this process is assigned: their state, and a lane for each active one."""

    def __init__(
        self,
        app: App,
        settings: WindowSettings,
        pipelines: Sequence[Pipeline],
        topics: Topics,
        metrics: WindowMetrics,
        dead_letters: DeadLetters,
        emit: Literal["auto", "all", "episodes"] = "auto",
        emit_all_limit: int = 20_000,
        compress: bool = True,
        has_history: bool = False,
    ) -> None:
        self.app = app
        self.budget = Budget(settings.max_series)
        self.partitions: dict[int, Partition] = {}
        self.lanes: dict[int, Lane] = {}
        self.is_recovered = False
        self._settings = settings
        self._plans = plan(pipelines)
        self._topics = topics
        self._metrics = metrics
        self._dead_letters = dead_letters
        self._emit = EmitChoice(emit, emit_all_limit)
        self._has_history = has_history
        self._left: Counter[str] = Counter()
        self._groups_left: Counter[str] = Counter()
        self._refused_told, self._next_tell_s = 0, 0.0
        self._recovered: dict[str, set[int]] = {}
        self._recoveries = 0
        self._has_lanes = asyncio.Event()
        self._samples = declare(app, topics.samples)
        self._forecasts = declare(app, topics.forecasts)
        for spec in (topics.due, topics.scores, topics.groups):
            declare(app, spec)
        self._ledgers = {
            "samples": Ledger(app, topics.samples.name),
            "forecasts": Ledger(app, topics.forecasts.name),
        }
        # Samples may wait for so long before a worker repeats their run, and needs its marks and the steps
        # before them.
        self._ring = changelog_table(app, "ring", topics.samples.partitions, self, retention_s=self._kept_s())
        state = changelog_table(app, "state", topics.samples.partitions, self, retention_s=None)
        self._writes = WindowWrites(
            app, topics, metrics, dead_letters, self._ring, state, self._ledgers, compress=compress
        )
        app.agent(self._samples, name="openanomaly.window.samples")(self._read_samples)
        app.agent(self._forecasts, name="openanomaly.window.forecasts")(self._read_forecasts)
        app.task(self._tick)
        app.on_partitions_revoked.connect(self._writes.wait_until_quiet)
        metrics.watch(self.counts, self.gauges)

    # -- what the tables' store tells (ChangelogOwner) -------------------------------------------

    def apply(self, table: str, partition: int, offset: int, key: bytes | None, value: bytes | None) -> None:
        """One changelog record, while recovering or as a standby."""
        if key is None or value is None:
            return
        held = self.partitions.get(partition)
        if held is None or held.is_started:
            # A partition we were active for and that another worker has written since: begin anew.
            if held is not None:
                self._leave(held)
            held = self.partitions[partition] = self._partition(partition)
        try:
            held.restore(key, value)
        except RejectedError as exc:
            # Without it windows would begin anew, or be wrong. A restart reads it again: a person must act.
            raise ConfigError(
                f"cannot go on from the {table} changelog of partition {partition}, offset {offset}: {exc}. "
                "It was written by a newer release, or is damaged: run the release that wrote it; to go back "
                "for good, delete both changelog topics, and windows fill anew (docs/upgrading.md)"
            ) from exc

    def drop(self, table: str, partition: int) -> None:
        """The partition is no longer ours."""
        held = self.partitions.pop(partition, None)
        if held is not None and held.is_started:
            self._leave(held)
        lane = self.lanes.pop(partition, None)
        if lane is not None:
            self.app.add_future(lane.stop(flush=False))

    def prepare(self, pipelines: Sequence[Pipeline]) -> Callable[[], None]:
        """What makes lanes and copies watch other pipelines from their next input on.

        Raises:
            ConfigError: a selector cannot be parsed, or too many pipelines share their windows.
        """
        return partial(self._replan, plan(pipelines))

    def _replan(self, plans: Sequence[BlockPlan]) -> None:
        self._plans = tuple(plans)
        self._keep_steps_for(self._kept_s())
        for number, partition in self.partitions.items():
            if (lane := self.lanes.get(number)) is not None:
                lane.replan(plans)
            else:
                self._replan_copy(partition, plans)

    def _kept_s(self) -> float:
        return ring_retention_s(self._plans) + (self._topics.samples.retention_s or 0.0)

    def _keep_steps_for(self, kept_s: float) -> None:
        """Longer windows need more of the changelog; what is kept longer than needed stays."""
        spec = self.app.specs[self._ring.changelog_topic_name]
        if spec.retention_s is not None and spec.retention_s < kept_s:
            self.app.specs[spec.name] = replace(spec, retention_s=kept_s)
            self.app.add_future(self._ensure_topics())

    async def _ensure_topics(self) -> None:
        try:
            await self.app.ensure_topics()
        except (ConfigError, RetryableError) as exc:
            log.error("the ring changelog keeps fewer steps than windows have now: %s", exc)

    def _replan_copy(self, partition: Partition, plans: Sequence[BlockPlan]) -> None:
        try:
            replan(partition, plans, 0)
        except RestartNeededError as exc:
            self._crashed(exc)

    def _partition(self, number: int) -> Partition:
        return Partition(number, self._plans, self.budget, has_history=self._has_history)

    def _leave(self, partition: Partition) -> None:
        self.budget.give(partition.series)
        self._left.update(partition.counts)
        self._groups_left.update(partition.share_outcomes)

    def revoked(self, table: str) -> None:
        self._recovered.clear()
        self._recoveries += 1
        self._has_lanes.clear()
        self._writes.close()
        self.is_recovered = False

    def recovered(self, table: str, active: set[int], standby: set[int]) -> None:
        self._recovered[table] = active
        if len(self._recovered) == 2:
            self.app.add_future(self._start_lanes(active, self._recoveries))

    async def _start_lanes(self, active: set[int], recovery: int) -> None:
        samples, forecasts = self._topics.samples.name, self._topics.forecasts.name
        tps = {TP(topic, p) for topic in (samples, forecasts) for p in active}
        await self._dead_letters.catch_up()
        begin, end = await committed_offsets(self.app, tps), await end_offsets(self.app, tps)
        if recovery != self._recoveries:
            return  # revoked meanwhile: the next recovery comes here again
        for lane in self.lanes.values():
            lane.reopened()
        for number in sorted(active - set(self.lanes)):
            partition = self.partitions.get(number)
            if partition is None:
                partition = self.partitions[number] = self._partition(number)
            if not partition.is_started:
                started = time.perf_counter()
                partition.start()
                log.debug("partition %d built in %.3f s", number, time.perf_counter() - started)
            s, f = TP(samples, number), TP(forecasts, number)
            partition.seek(begin[s], begin[f], end[s], end[f])
            every = self._settings.checkpoint_s
            lane = self.lanes[number] = Lane(
                partition,
                self._writes,
                checkpoint_s=every,
                idle_ttl_ms=round(self._settings.idle_ttl_s * 1000),
                first_checkpoint_s=every * (number + 1) / self._topics.samples.partitions,
                crashed=self._crashed,
                read_on=partial(self._read_on, number),
            )
            lane.start()
        self._choose_emit()
        self._writes.open()
        self._has_lanes.set()
        self.is_recovered = True
        log.info("windows ready: %d partitions, %d series", len(self.lanes), self.budget.used)

    def _read_on(self, number: int, topic: Topic, is_on: bool) -> None:
        """Read more of a partition of `topic`, or not; in a rebalance that is not ours to say."""
        if self._has_lanes.is_set():
            tps = {TP(topic_name(self._topics, topic), number)}
            (self.app.consumer.resume_partitions if is_on else self.app.consumer.pause_partitions)(tps)

    def _crashed(self, error: BaseException) -> None:
        log.error("window worker crashed", exc_info=error)
        self.app.add_future(self.app.crash(error))

    async def stop(self) -> None:
        """Write what is computed and a last checkpoint of every partition."""
        lanes, self.lanes = list(self.lanes.values()), {}
        # In a rebalance nothing can be written; the next owner repeats what was not.
        await asyncio.gather(*(lane.stop(flush=self._writes.is_open) for lane in lanes))

    # -- agents --------------------------------------------------------------------------------

    async def _read_samples(self, stream: Any) -> None:
        async for event in stream.noack().events():
            # Never `take()` or a bare `async for value`: Faust acknowledges a record even when its
            # agent raises. Acks are the ledger's, released at checkpoints.
            await self._has_lanes.wait()  # streams open before they are built: nothing may be passed over
            if self._ledgers["samples"].receive(event):
                lane, raw = self._lane_and_raw("samples", event)
                if lane is not None:
                    await lane.offer_samples(event.message.offset, raw)

    async def _read_forecasts(self, stream: Any) -> None:
        async for event in stream.noack().events():
            await self._has_lanes.wait()
            if self._ledgers["forecasts"].receive(event):
                lane, raw = self._lane_and_raw("forecasts", event)
                if lane is not None:
                    await lane.offer_forecasts(event.message.offset, raw)

    def _lane_and_raw(self, topic: str, event: Any) -> tuple[Lane | None, Raw]:
        message = event.message
        raw = Raw(message.value or b"", int(message.timestamp * 1000))
        message.value = None  # the ledger holds the shell until the checkpoint, not the bytes
        if self._dead_letters.is_set_aside(
            origin_of(self._topics, topic, message.partition, message.offset, raw)
        ):
            self._metrics.rejected.labels(topic=topic).inc()
            raw.is_set_aside = True
        return self.lanes.get(message.partition), raw

    async def _tick(self) -> None:
        """Offer every lane the time, with the end of its samples read after that moment."""
        name = self._topics.samples.name
        while not self.app.should_stop:
            await asyncio.sleep(self._settings.tick_s)
            if not self.is_recovered:
                continue
            now_ms = int(time.time() * 1000)
            ends = await end_offsets(self.app, {TP(name, p) for p in self.lanes})
            for tp, end in ends.items():
                if (lane := self.lanes.get(tp.partition)) is not None:
                    lane.offer_tick(now_ms, end)
            self._choose_emit()
            self._tell_refused(time.monotonic())

    def _tell_refused(self, now_s: float) -> None:
        """Warn of series beyond `max_series`, at most once a minute: nothing of them is scored."""
        refused = self.counts()["max_series"] + self.share_outcomes()["max_series"]
        if refused > self._refused_told and now_s >= self._next_tell_s:
            log.warning(
                "%d samples refused since the last such line: they are of new series, %d of at most %d are "
                "held; raise window.max_series",
                refused - self._refused_told,
                self.budget.used,
                self.budget.limit,
            )
            self._refused_told, self._next_tell_s = refused, now_s + _TELL_REFUSED_S

    def _choose_emit(self) -> None:
        held = sum(lane.partition.distinct_series for lane in self.lanes.values())
        emit = self._emit.choose(held, len(self.lanes), self._topics.samples.partitions)
        for partition in self.partitions.values():
            partition.emit = emit

    # -- what others ask -----------------------------------------------------------------------

    def counts(self) -> Counter[str]:
        """Outcomes since the process started, also of partitions that have left."""
        return sum((p.counts for p in self.partitions.values()), Counter(self._left))

    def share_outcomes(self) -> Counter[str]:
        """The same of the shares of groups, and of series that are in no group."""
        out = sum((p.share_outcomes for p in self.partitions.values()), Counter(self._groups_left))
        out["ungrouped"] = self.counts()["ungrouped"]
        return out

    def groups(self) -> int:
        return sum(p.groups for p in self.partitions.values() if p.is_started)

    def gauges(self) -> dict[str, float]:
        started = [p for p in self.partitions.values() if p.is_started]
        return {
            "series": sum(p.series for p in started),
            "series_with_forecast": sum(p.with_forecast for p in started),
            "partitions": len(self.lanes),
            "partitions_replaying": sum(lane.is_replaying for lane in self.lanes.values()),
            "busy_seconds": sum(lane.busy_s for lane in self.lanes.values()),
            "checkpoints": sum(lane.checkpoints for lane in self.lanes.values()),
            "row_state_bytes": max((p.row_state_bytes for p in started), default=0),
        }

    def status(self) -> dict[str, Any]:
        return {
            "recovered": self.is_recovered,
            "emit": self._emit.chosen,
            "series": self.budget.used,
            "max_series": self.budget.limit,
            "partitions": {
                number: {
                    "series": lane.partition.series,
                    "position": lane.partition.position._asdict(),
                    "replaying": lane.is_replaying,
                }
                for number, lane in sorted(self.lanes.items())
            },
            "counts": dict(self.counts()),
        }

    async def explain(self, selector: str, limit: int = 100) -> list[dict[str, Any]]:
        """At most `limit` series that a selector chooses, and what is known of them."""
        parsed = Selector.parse(selector)
        out: list[dict[str, Any]] = []
        for partition in list(self.partitions.values()):
            if partition.is_started and len(out) < limit:
                for found in explain(partition, parsed, limit - len(out)):
                    out += found
                    await asyncio.sleep(0)  # the receiver may answer on the same loop
        return out

    async def count(self, selector: str) -> dict[str, int]:
        """How many series a selector chooses, of those in the partitions of this worker."""
        parsed = Selector.parse(selector)
        series = 0
        held = [partition for partition in self.partitions.values() if partition.is_started]
        for partition in held:
            for found in count(partition, parsed):
                series += found
                await asyncio.sleep(0)  # as above
        return {
            "series": series,
            "partitions": len(held),
            "partitions_of_all": self._topics.samples.partitions,
        }
