"""Dead letters as people see them, without their payload."""

from dataclasses import dataclass
from typing import Any, Literal

REACH = 10_000
"""How many of the newest dead letters are looked through; older ones are neither shown nor replayed."""


@dataclass(frozen=True, slots=True)
class Replay:
    """That a letter was put back: as which offset of its topic and partition, and when."""

    offset: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter without its payload. `id` is its offset in the dead-letter topic.

    Attributes:
        obstacle: why the letter cannot be replayed, or None.
        payload: what is known of the payload, where it is a frame (core/summary.py).
    """

    id: int
    reason: str
    topic: str
    partition: int
    offset: int
    noted_ms: int
    set_aside: bool
    detail: str
    payload_bytes: int
    payload: dict[str, Any] | None
    obstacle: str | None
    replays: tuple[Replay, ...] = ()


@dataclass(frozen=True, slots=True)
class Filter:
    """Which letters. `topic` is a whole name, or its last part (`samples`)."""

    topic: str | None = None
    reason: str | None = None
    since_ms: int = 0
    before: int | None = None
    """Ids below this one."""
    set_aside: bool | None = None
    """False: notes of crashes of records that are tried again."""

    def chooses(self, topic: str, reason: str, noted_ms: int, set_aside: bool) -> bool:
        return (
            (self.topic is None or self.topic in (topic, last_part(topic)))
            and (self.reason is None or self.reason == reason)
            and noted_ms >= self.since_ms
            and (self.set_aside is None or self.set_aside == set_aside)
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a letter that was to be replayed.

    `failed`: the broker did not take it, and may later. `refused`: it cannot be, or not without force.
    """

    id: int
    outcome: Literal["replayed", "possible", "refused", "failed", "unknown"]
    topic: str = ""
    partition: int = 0
    offset: int | None = None
    """The new one."""
    why: str = ""


def last_part(topic: str) -> str:
    """What tells topics of one installation apart."""
    return topic.rpartition(".")[2]
