"""All rooms run other pipelines, or none does."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
from prometheus_client import CollectorRegistry

from openanomaly.agents.reload import PipelinesInForce, at_once, difference
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.ports.config_store import Definitions, Stored
from openanomaly.errors import ConfigError
from openanomaly.telemetry import ReloadMetrics

A, B, C = (Pipeline(name=name) for name in "abc")


def definitions(*pipelines: Pipeline, problems: tuple[str, ...] = ()) -> Definitions:
    return Definitions(tuple(Stored(p, "1") for p in pipelines), problems)


class Room:
    """Runs what it is told, and cannot run a pipeline of the name it `refuses`."""

    def __init__(self, refuses: str = "") -> None:
        self.runs: Sequence[Pipeline] = (A,)
        self._refuses = refuses

    def prepare(self, pipelines: Sequence[Pipeline]) -> Callable[[], None]:
        if self._refuses in {p.name for p in pipelines}:
            raise ConfigError(f"no model for {self._refuses}")

        def change() -> None:
            self.runs = pipelines

        return change


class Rooms:
    def __init__(self, *rooms: Room) -> None:
        self.registry = CollectorRegistry()
        self.running = PipelinesInForce([A], ReloadMetrics(self.registry))
        self.rooms = rooms
        for room in rooms:
            self.running.tell(at_once(room.prepare))

    def tell(self, *some: Definitions) -> None:
        async def changes() -> AsyncIterator[Definitions]:
            for each in some:
                yield each

        asyncio.run(self.running.follow(changes()))

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"openanomaly_config_{name}", labels)

    @property
    def reloads(self) -> tuple[float | None, float | None]:
        """Taken, refused."""
        return tuple(self.metric("reload_total", result=r) for r in ("taken", "refused"))  # type: ignore[return-value]


def test_every_room_runs_what_is_told(caplog: pytest.LogCaptureFixture) -> None:
    rooms = Rooms(Room(), Room())
    with caplog.at_level(logging.INFO):
        rooms.tell(definitions(A), definitions(B, C), definitions(B, C))

    assert [room.runs for room in rooms.rooms] == [(B, C), (B, C)]
    assert rooms.running.names == ["b", "c"]
    assert rooms.reloads == (1, 0)
    assert rooms.metric("pipelines") == 2
    assert "pipelines changed: added b, c; removed a" in caplog.text


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (definitions(A, B), "no model for b"),
        (definitions(A, C, problems=("x.yaml, line 3: no setting scroe", "y.yaml: two")), "line 3"),
    ],
)
def test_what_one_room_cannot_run_no_room_runs(
    change: Definitions, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    rooms = Rooms(Room(), Room(refuses="b"), Room())
    rooms.tell(change, change, change)

    assert [room.runs for room in rooms.rooms] == [(A,)] * 3
    assert rooms.running.pipelines == (A,)
    assert rooms.reloads == (0, 1), "told once"
    assert rooms.metric("reload_successful") == 0
    assert why in (rooms.running.problem or "")
    assert caplog.text.count("the pipelines stay as they are") == 1


def test_after_a_refusal_what_can_be_used_is_taken_and_what_runs_is_all_well() -> None:
    rooms = Rooms(Room(refuses="b"))
    rooms.tell(definitions(A, B), definitions(A))
    assert (rooms.reloads, rooms.running.problem) == ((0, 1), None)
    rooms.tell(definitions(A, B), definitions(C))
    assert (rooms.reloads, rooms.running.names) == ((1, 2), ["c"])
    assert rooms.metric("reload_successful") == 1


def test_the_difference_in_words() -> None:
    changed = A.model_copy(update={"step_s": 5.0})
    assert difference([A, B], [changed, C]) == "added c; changed a; removed b"
    assert difference([A, B], [B, A]) == "their order"
