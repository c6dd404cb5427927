"""The pipelines that a process runs, and how they change while it does.

What a store tells is checked by every room first; then all rooms change in one go, between two turns of
the event loop. What cannot be used is refused as a whole, told, and counted: what runs goes on.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.ports.config_store import Definitions
from openanomaly.errors import ConfigError
from openanomaly.telemetry import ReloadMetrics

log = logging.getLogger(__name__)

Prepare = Callable[[Sequence[Pipeline]], Awaitable[Callable[[], None]]]
"""What a room needs for other pipelines, made ready while the old ones run; ConfigError where there is none.
What it returns makes the room use them, and cannot fail."""


class PipelinesInForce:
    """Which pipelines run, and the rooms that must hear of others.

    Attributes:
        pipelines: in force now.
        problem: why the newest definitions are not in force; None where they are.
    """

    def __init__(self, pipelines: Sequence[Pipeline], metrics: ReloadMetrics) -> None:
        self.pipelines: tuple[Pipeline, ...] = tuple(pipelines)
        self.problem: str | None = None
        self._metrics = metrics
        self._rooms: list[Prepare] = []
        self._refused: Definitions | None = None
        metrics.in_force(len(self.pipelines), time.time())

    @property
    def names(self) -> list[str]:
        return [pipeline.name for pipeline in self.pipelines]

    def status(self) -> dict[str, Any]:
        return {"names": self.names, "problem": self.problem}

    def tell(self, prepare: Prepare) -> None:
        """A room that hears of changes; rooms that ask others for something come behind them."""
        self._rooms.append(prepare)

    async def follow(self, changes: AsyncIterator[Definitions]) -> None:
        """Take over what a store tells, for ever."""
        try:
            async for definitions in changes:
                await self.take(definitions)
        except Exception as exc:
            log.exception("pipelines are not watched any more")
            self._settle(f"pipelines are not watched any more: {exc!r}")

    async def take(self, definitions: Definitions) -> None:
        """Run these pipelines from now on, or tell why not."""
        if definitions == self._refused:
            return
        self._refused = None
        if not definitions.problems and definitions.pipelines == self.pipelines:
            self._settle(None)
            return
        try:
            if definitions.problems:
                raise ConfigError("\n".join(definitions.problems))
            await self._change(definitions.pipelines)
        except ConfigError as exc:
            self._refused = definitions
            self._metrics.refused()
            self._settle(str(exc))
            log.error("the pipelines stay as they are, a change cannot be used: %s", exc)

    async def _change(self, pipelines: Sequence[Pipeline]) -> None:
        ready = [await prepare(pipelines) for prepare in self._rooms]
        for change in ready:
            change()
        log.info("pipelines changed: %s", difference(self.pipelines, pipelines))
        self.pipelines = tuple(pipelines)
        self._metrics.took()
        self._metrics.in_force(len(self.pipelines), time.time())
        self._settle(None)

    def _settle(self, problem: str | None) -> None:
        self.problem = problem
        self._metrics.successful.set(problem is None)


def at_once(change: Callable[[Sequence[Pipeline]], Callable[[], None]]) -> Prepare:
    """A room that needs no time to make ready."""

    async def prepare(pipelines: Sequence[Pipeline]) -> Callable[[], None]:
        return change(pipelines)

    return prepare


def aside(change: Callable[[Sequence[Pipeline]], Callable[[], None]]) -> Prepare:
    """A room that makes ready in a thread: models take seconds to load."""

    async def prepare(pipelines: Sequence[Pipeline]) -> Callable[[], None]:
        return await asyncio.to_thread(change, pipelines)

    return prepare


def difference(old: Sequence[Pipeline], new: Sequence[Pipeline]) -> str:
    """Which pipelines came, changed and went, in words."""
    before, after = ({pipeline.name: pipeline for pipeline in some} for some in (old, new))
    parts = [
        ("added", [name for name in after if name not in before]),
        ("changed", [name for name in after if name in before and after[name] != before[name]]),
        ("removed", [name for name in before if name not in after]),
    ]
    return "; ".join(f"{what} {', '.join(names)}" for what, names in parts if names) or "their order"
