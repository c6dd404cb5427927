"""The port of stores of pipeline definitions."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from openanomaly.core.pipelines.pipeline import Pipeline


@dataclass(frozen=True, slots=True)
class Stored:
    """A definition as a store has it.

    Attributes:
        version: opaque, printable, without quotes; another one after every change of the definition.
    """

    pipeline: Pipeline
    version: str


@dataclass(frozen=True, slots=True)
class Definitions:
    """Everything a store has at one moment.

    Attributes:
        stored: by name, ascending; names differ.
        problems: what is there and cannot be used, a line each: its place, the value, what is allowed. Who
            runs pipelines takes all of a store or nothing, so that nobody runs half of a change.
    """

    stored: tuple[Stored, ...]
    problems: tuple[str, ...] = ()

    @property
    def pipelines(self) -> tuple[Pipeline, ...]:
        return tuple(one.pipeline for one in self.stored)


class ConfigStore(Protocol):
    """Keeps pipeline definitions, and tells when they change. Used from one event loop.

    Every method may raise StoreUnavailableError: the store cannot be reached now.
    """

    shown: str
    """Where it is, without secrets."""

    async def read(self) -> Definitions:
        """What is there now."""
        ...

    async def create(self, pipeline: Pipeline) -> Stored:
        """Add a definition, durably.

        Raises:
            PipelineExistsError: the name is taken.
        """
        ...

    async def replace(self, pipeline: Pipeline, version: str | None) -> Stored:
        """Put a definition in the place of the one of its name; only of `version`, if given.

        Raises:
            UnknownPipelineError: there is none of that name.
            PipelineChangedError: it has another version.
        """
        ...

    async def delete(self, name: str, version: str | None) -> None:
        """Remove a definition; only of `version`, if given.

        Raises:
            UnknownPipelineError, PipelineChangedError: as for `replace`.
        """
        ...

    def watch(self) -> AsyncIterator[Definitions]:
        """What is there now, then what is there after each change, whoever made it; without end.

        An outage of the store is waited out, never raised: what was told last holds meanwhile. Changes that
        come close together may be told as one.
        """
        ...

    async def close(self) -> None: ...
