"""From where to where an installation moves, what is asked for, and what came of it."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from openanomaly.broker.offline import Log
from openanomaly.broker.ring_store import changelog_spec
from openanomaly.broker.topics import Topics, TopicSpec
from openanomaly.core.windows.plan import BlockPlan, ring_retention_s
from openanomaly.errors import ConfigError

Report = Callable[[str], None]
Reader = Literal["window", "infer", "sink"]


@dataclass(frozen=True, slots=True)
class Side:
    """An installation: a broker, and its topics there."""

    log: Log
    prefix: str
    topics: Topics
    ring: TopicSpec
    state: TopicSpec

    @classmethod
    def of(cls, log: Log, prefix: str, topics: Topics, plans: Sequence[BlockPlan]) -> "Side":
        partitions, app_id = topics.samples.partitions, f"{prefix}-window"
        return cls(
            log,
            prefix,
            topics,
            changelog_spec(app_id, "ring", partitions, ring_retention_s(plans)),
            changelog_spec(app_id, "state", partitions, None),
        )

    @property
    def partitions(self) -> int:
        return self.topics.samples.partitions

    @property
    def specs(self) -> list[TopicSpec]:
        t = self.topics
        return [t.samples, t.due, t.forecasts, t.scores, t.dead_letter, self.ring, self.state]

    def group(self, role: Reader) -> str:
        return f"{self.prefix}-{role}"

    async def check_alone(self) -> None:
        """Raises:
        ConfigError: somebody reads here.
        """
        readers: tuple[Reader, ...] = ("window", "infer", "sink")
        for role in readers:
            if count := await self.log.members(self.group(role)):
                raise ConfigError(
                    f"group {self.group(role)} in {self.log} has {count} members: stop every role on both "
                    "sides first, receivers too"
                )

    def __str__(self) -> str:
        return f"{self.log} ({self.prefix})"


@dataclass(frozen=True, slots=True)
class Job:
    """What to move, and how it is written there.

    Attributes:
        emit, emit_all_limit: of the source's workers: which scores of the run that is repeated they sent.
        compress: label columns of frames.
    """

    plans: Sequence[BlockPlan]
    emit: Literal["auto", "all", "episodes"] = "auto"
    emit_all_limit: int = 20_000
    compress: bool = True
    is_dry: bool = False


@dataclass(slots=True)
class Moved:
    """What was moved."""

    series: int = 0
    rows: int = 0
    """Of all window specifications: a series of several has one in each."""
    samples: int = 0
    scores: int = 0
    forecasts: int = 0
    contexts: int = 0
    letters: int = 0
    unreadable: int = 0
    expired: int = 0
    records: int = 0
    size_bytes: int = 0
    seconds: float = 0.0
    passed_over: Counter[str] = field(default_factory=Counter)
    """Records that were set aside and not yet passed over, by topic."""
