"""Window workers come and go under load: every step is scored, and with one value."""

from pathlib import Path

import pytest

from chaos.faults import Scene, restart
from chaos.scenes import on_kafka, outcome
from parts.kafka import Cluster

ONE_WINDOW = ("receiver-1", "window-1", "inference-1", "sink-1")


async def share(scene: Scene, name: str) -> float:
    """How many partitions a window worker has."""
    metrics = await scene.room.stage.metrics(scene.room.stage.members[name])
    return metrics["openanomaly_window_partitions"]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("copies", [0, 1])
def test_a_second_window_worker_takes_half_and_gives_it_back(
    tmp_path: Path, kafka: Cluster, topic_prefix: str, copies: int
) -> None:
    async def one_more(scene: Scene) -> None:
        second = scene.room.stage.add("window-2")
        await scene.room.stage.wait_until_ready(second)
        await scene.room.scored(scene.room.sender.released + 4)
        assert [await share(scene, name) for name in ("window-1", "window-2")] == [2, 2]

    async def one_less(scene: Scene) -> None:
        await scene.room.stage.stop(scene.room.stage.members["window-2"])
        await scene.room.scored(scene.room.sender.released + 4)
        assert await share(scene, "window-1") == 4

    stage = on_kafka(tmp_path, kafka, topic_prefix, ONE_WINDOW, {"standby_replicas": copies})
    outcome(stage, {"one more": one_more, "one less": one_less})
    assert stage.room.stage.exits == []


@pytest.mark.timeout(300)
def test_all_roles_are_restarted_one_after_another_and_each_ends_within_ten_seconds(
    tmp_path: Path, kafka: Cluster, topic_prefix: str
) -> None:
    stage = on_kafka(tmp_path, kafka, topic_prefix)
    outcome(stage, {role: restart(role) for role in ("receiver", "window", "inference", "sink")})
    assert stage.room.stage.exits == []
    stops = stage.room.stage.stops
    assert len(stops) >= 5
    assert [s for s in stops if s.status != 0 or s.seconds > 10] == []
