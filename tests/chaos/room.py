"""A fleet, the product, a target and an oracle, joined; and what a run has come to."""

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from chaos.clock import Clock
from chaos.fleet import Fleet
from chaos.oracle import Findings, Oracle
from chaos.sender import Sender
from chaos.stage import Member, Stage
from chaos.target import SERIES, Target
from openanomaly.core.pipelines.pipeline import Pipeline
from parts.part import get

WARMUP = 32
HORIZON, EVERY = 48, 16
PIPELINE = {
    "name": "chaos",
    "selector": "chaos_load",
    "step_s": 1,
    "lateness_s": 1,
    "context": 64,
    "min_context": WARMUP,
    "horizon": HORIZON,
    "forecast_every": EVERY,
    "model": "statistical",
    "score": {"warmup": WARMUP, "block": 32},
    "group_by": [],  # e2e/test_groups.py
}
_BACK_S = 6 * 3600
"""How far back the first step lies: steps are sent faster than time passes, and none is in the future."""


@dataclasses.dataclass
class Result:
    """What a run has come to. `lost` are acknowledged samples that are in no window."""

    steps: int
    acknowledged: int
    lost: int
    findings: Findings
    repeated: int
    differing: int
    strange: int
    differences: list[tuple[str, int, int, float, float]]
    refused: list[str]
    dropped: dict[str, int]
    unbalanced: list[str]

    @property
    def is_good(self) -> bool:
        bad = self.lost + self.findings.missing + self.wrong + self.strange
        return not bad and not self.refused and not self.unbalanced

    @property
    def wrong(self) -> int:
        """Scores that an undisturbed run would not have given, and values that came twice and differ."""
        found = self.findings
        return found.wrong + found.wrong_values + found.unknown_origin + self.differing

    def complaints(self) -> str:
        """For whoever reads a failed test."""
        return "\n".join(
            [
                f"lost {self.lost} of {self.acknowledged}, differing {self.differing}, "
                f"strange {self.strange}, refused {self.refused[:3]}, unbalanced {self.unbalanced}",
                f"{dataclasses.replace(self.findings, examples=[])}",
                *map(str, self.findings.examples[:20]),
                *(f"twice: {each}" for each in self.differences[:40]),
            ]
        )


class Room:
    """Everything of a run, from before its first step to its verdict."""

    def __init__(
        self,
        root: Path,
        broker_url: str,
        broker: Mapping[str, Any],
        members: list[str],
        series: int,
        steps: int,
        seed: int = 0,
        settings: Mapping[str, Any] | None = None,
        pipeline: Mapping[str, Any] | None = None,
        clock: Clock | None = None,
    ) -> None:
        what = {**PIPELINE, **(pipeline or {})}
        self.lead = 150
        """Steps that are sent ahead of the scores of the newest complete one."""
        self.fleet = Fleet(series, int(time.time() - _BACK_S) * 1000, seed)
        self.target = Target(self.fleet, steps, WARMUP)
        self.oracle = Oracle(self.fleet, Pipeline.model_validate(what))
        config = {
            "broker": dict(broker),
            "pipelines": [what],
            "sink": {"emit": "all", "series": SERIES, "backoff_max_s": 2, "timeout_s": 5},
            "window": {"checkpoint_s": 5},
            **(settings or {}),
        }
        self.clock = clock
        self.stage = Stage(root, broker_url, self.target.url, config, clock.env if clock else None)
        for name in members:
            self.stage.add(name)
        receivers = self.stage.of("receiver") or self.stage.of("run")
        self.sender = Sender(self.fleet, [m.product.write_url for m in receivers])
        self.steps = steps
        self.error: BaseException | None = None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Room"]:
        """From the start of every process to its end."""
        tasks: list[asyncio.Task[Any]] = []

        def watch(task: asyncio.Task[Any]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                self.error = error

        async with self.target.running():
            try:
                for work in (self.stage.supervise(), self.sender.run(), self._judge(), self._watch_memory()):
                    tasks.append(asyncio.create_task(work))
                    tasks[-1].add_done_callback(watch)
                await self.stage.ready()
                yield self
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await self.stage.close()

    # -- load ------------------------------------------------------------------------------------

    async def push(self, steps: int, pace_s: float = 0.0) -> None:
        """Have so many more steps sent, and wait until they are acknowledged."""
        for _ in range(steps):
            await self.sender.release()
            await asyncio.sleep(pace_s)
        last = self.sender.released
        await self.until(lambda: self.sender.taken >= last, "the acknowledgement of what was sent")

    async def keep_pushing(self, pace_s: float) -> None:
        """Have steps sent, one each `pace_s`, up to `lead` ahead of their scores; until cancelled."""
        next_s = time.monotonic()
        while self.sender.released < self.steps:
            if self.sender.released - self.target.complete < self.lead:
                await self.sender.release()
            next_s = max(next_s + pace_s, time.monotonic() - 1.0)
            await asyncio.sleep(max(0.0, next_s - time.monotonic()))

    # -- waiting ---------------------------------------------------------------------------------

    async def until(self, is_true: Callable[[], object], what: str, timeout_s: float = 120.0) -> None:
        """Returns as soon as `is_true()`; fails with what is known when it does not come."""
        end_s = time.monotonic() + timeout_s
        while not is_true():
            if self.error is not None:
                raise self.error
            if time.monotonic() > end_s:
                raise TimeoutError(f"{what}: not within {timeout_s:g} s\n{self.tell()}")
            await asyncio.sleep(0.02)

    async def scored(self, step: int, timeout_s: float = 120.0) -> None:
        """Returns when all steps up to this one are scored, of every series."""
        await self.until(lambda: self.target.complete > step, f"the scores of step {step}", timeout_s)

    def summary(self) -> str:
        """One line of where everything stands."""
        found, target = self.oracle.found, self.target
        return (
            f"step {self.sender.released}, taken {self.sender.taken}, complete {target.complete}, judged "
            f"{self.oracle.next_step}, wrong {found.wrong}, unknown origin {found.unknown_origin}, "
            f"differing {target.differing}, exits {len(self.stage.exits)}"
        )

    def tell(self) -> str:
        """Where everything stands."""
        target = self.target
        count = int(target.count[target.complete]) if target.complete < self.steps else 0
        lines = [
            f"released {self.sender.released}, taken {self.sender.taken}, complete {target.complete} "
            f"and {count} of {self.fleet.series}, judged {self.oracle.next_step}",
            *(f"{e.name} ended with {e.status}: {e.words}" for e in self.stage.exits[-3:]),
        ]
        for member in self.stage.members.values():
            lines += [f"--- {member.name}", member.product.process.tail(6)]
            with contextlib.suppress(OSError):
                lines.append(get(f"{member.product.url}/api/v1/admin/status").decode())
        return "\n".join(lines)

    async def _judge(self) -> None:
        oracle, target = self.oracle, self.target
        while True:
            if target.complete > max(oracle.next_step + 1, target.first):
                await asyncio.to_thread(self._judge_next)
            else:
                await asyncio.sleep(0.05)

    def _judge_next(self) -> None:
        step = self.oracle.next_step
        seen = self.target.seen
        self.oracle.judge(seen["yhat"][step], seen["anomaly_score"][step], seen["y"][step])

    async def _watch_memory(self) -> None:
        while True:
            self.stage.look_at_memory()
            await asyncio.sleep(1.0)

    # -- the verdict -----------------------------------------------------------------------------

    async def finish(self, timeout_s: float = 180.0) -> Result:
        """Wait for the scores of all that was sent, and compare. What does not come is missing.

        The clock closes the last step, but not while it is behind where it has been.
        """
        last = self.sender.released
        is_open = self.clock is not None and self.clock.furthest_s > 0
        with contextlib.suppress(TimeoutError):
            await self.until(lambda: self.sender.taken >= last, "acknowledgements", timeout_s)
            await self.scored(last - 1 - is_open, timeout_s)
        # The oracle closes a step when it takes the next one: the last step stays open.
        with contextlib.suppress(TimeoutError):
            whole = min(self.target.complete, last) - 1
            await self.until(lambda: self.oracle.next_step >= whole, "the oracle", timeout_s)
        while self.oracle.next_step < last - 1:
            await asyncio.to_thread(self._judge_next)
        seen = self.target.seen["y"][WARMUP : self.sender.taken - is_open]
        await self.stage.ready()  # who was replaced is starting
        dropped, unbalanced = await self._counters()
        return Result(
            steps=last,
            acknowledged=self.sender.samples,
            lost=int(np.isnan(seen).sum()),
            findings=self.oracle.found,
            repeated=self.target.repeated,
            differing=self.target.differing,
            strange=self.target.strange,
            differences=self.target.differences,
            refused=self.sender.refused,
            dropped=dropped,
            unbalanced=unbalanced,
        )

    async def _counters(self) -> tuple[dict[str, int], list[str]]:
        """Samples that live window workers dropped, by reason; and those whose counts do not add up."""
        dropped: dict[str, int] = {}
        unbalanced = []
        for member in self.stage.of("window") + self.stage.of("run"):
            found = await self.stage.metrics(member)
            prefix = "openanomaly_window_samples_dropped_total{reason="
            reasons = {k[len(prefix) + 1 : -2]: int(v) for k, v in found.items() if k.startswith(prefix)}
            came = found["openanomaly_window_samples_total"]
            accepted = found["openanomaly_window_samples_accepted_total"]
            if came != accepted + sum(reasons.values()):
                unbalanced.append(f"{member.name}: {came} in, {accepted} accepted, dropped {reasons}")
            for reason, n in reasons.items():
                dropped[reason] = dropped.get(reason, 0) + n
        return {k: n for k, n in dropped.items() if n}, unbalanced


def the(members: list[Member]) -> Member:
    """The only one of a role."""
    (member,) = members
    return member
