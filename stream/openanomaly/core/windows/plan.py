"""What window workers are to do: pipelines grouped by the windows they share."""

from collections.abc import Iterable
from dataclasses import dataclass

import xxhash

from openanomaly.core.pipelines.pipeline import ForecasterSpec, Pipeline, WindowSpec
from openanomaly.core.pipelines.selector import OwnSelector, Selector
from openanomaly.errors import ConfigError


@dataclass(frozen=True)
class WatchedPipeline:
    """A pipeline with its selector compiled."""

    pipeline: Pipeline
    selector: Selector

    @property
    def name(self) -> str:
        return self.pipeline.name

    @property
    def forecaster(self) -> ForecasterSpec:
        return self.pipeline.forecaster

    @property
    def uid(self) -> int:
        """Names the pipeline's scoring state: another tolerance keeps it, another block length does not."""
        score = self.pipeline.score
        return xxhash.xxh3_64_intdigest(f"score {self.name} {score.block} {score.memory}".encode())


@dataclass(frozen=True)
class BlockPlan:
    """One window specification and the pipelines that share it."""

    spec: WindowSpec
    pipelines: tuple[WatchedPipeline, ...]

    @property
    def forecasters(self) -> tuple[ForecasterSpec, ...]:
        return tuple(dict.fromkeys(p.forecaster for p in self.pipelines))

    @property
    def lateness_ms(self) -> int:
        return round(1000 * max(p.pipeline.lateness_s for p in self.pipelines))


MOST_SHARED = 128
"""Pipelines on one window specification. The state of a row must fit into a changelog record many times."""


def plan(pipelines: Iterable[Pipeline]) -> tuple[BlockPlan, ...]:
    """Group pipelines by window specification. Those with a query are of pull mode, and left out.

    The shares of groups have windows of their own, and come last.

    Raises:
        ConfigError: a selector cannot be parsed, or too many pipelines share their windows.
    """
    groups: dict[WindowSpec, list[WatchedPipeline]] = {}
    streamed = [p for p in pipelines if p.query is None]
    for pipeline in streamed:
        watched = WatchedPipeline(pipeline, Selector.parse(pipeline.selector))
        groups.setdefault(pipeline.window, []).append(watched)
    for pipeline in [p.of_groups for p in streamed if p.group_by]:
        selector = OwnSelector.parse(pipeline.selector)
        groups.setdefault(pipeline.window, []).append(WatchedPipeline(pipeline, selector))
    for spec, members in groups.items():
        if len(members) > MOST_SHARED:
            raise ConfigError(
                f"{len(members)} pipelines share one {spec}, at most {MOST_SHARED} can: give some another "
                "step_s, context, transform or aggregate"
            )
    return tuple(BlockPlan(spec, tuple(members)) for spec, members in groups.items())


def ring_retention_s(plans: Iterable[BlockPlan]) -> float:
    """How long the `ring` changelog keeps steps: the longest window, and half as much again."""
    return max((p.spec.context * p.spec.step_ms for p in plans), default=0) / 1000 * 1.5
