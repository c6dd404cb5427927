"""The topics of the product: names, partitions, how long their records live."""

from dataclasses import dataclass

MAX_RECORD_BYTES = 1_000_000
"""Largest record; Kafka's default `message.max.bytes` is 1,048,588."""


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """One topic, as it must exist before anything reads or writes it.

    Attributes:
        retention_s: age at which records are deleted, read or not; None keeps them.
        compact: only the latest record of each key is kept; excludes `retention_s`.
        drop_consumed: embedded broker only: a record is deleted once every group has committed it.
            False for logs that are read again from their start, as changelogs are.
        is_edge: records come from outside and can be refused. The embedded broker stops them before
            its disk limit, so that readers can still write what lets them go on.
    """

    name: str
    partitions: int
    retention_s: float | None
    compact: bool = False
    drop_consumed: bool = True
    is_edge: bool = False


@dataclass(frozen=True, slots=True)
class Topics:
    """Every topic that rooms meet through. Changelogs belong to their tables."""

    samples: TopicSpec
    due: TopicSpec
    forecasts: TopicSpec
    scores: TopicSpec
    groups: TopicSpec
    dead_letter: TopicSpec


def topics(
    prefix: str,
    partitions: int,
    samples_retention_s: float = 6 * 3600,
    scores_retention_s: float = 6 * 3600,
    dead_letter_retention_s: float = 7 * 86400,
    due_retention_s: float = 3600,
    forecasts_retention_s: float = 6 * 3600,
    groups_retention_s: float = 3600,
) -> Topics:
    """The topics under `prefix`; all have `partitions` partitions but the dead letters' one."""
    return Topics(
        samples=TopicSpec(f"{prefix}.samples", partitions, samples_retention_s, is_edge=True),
        due=TopicSpec(f"{prefix}.due", partitions, due_retention_s),
        forecasts=TopicSpec(f"{prefix}.forecasts", partitions, forecasts_retention_s),
        scores=TopicSpec(f"{prefix}.scores", partitions, scores_retention_s),
        groups=TopicSpec(f"{prefix}.groups", partitions, groups_retention_s),
        dead_letter=TopicSpec(f"{prefix}.dead-letter", 1, dead_letter_retention_s, drop_consumed=False),
    )
