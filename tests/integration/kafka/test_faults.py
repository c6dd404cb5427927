"""Each fault at least once, under load: nothing that was acknowledged is lost, no score differs."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer

from chaos import faults
from chaos.clock import Clock
from chaos.faults import POISON, TOPICS, Scene
from chaos.scenes import on_kafka, outcome
from openanomaly.pb.openanomaly.v1 import frames_pb2 as pb
from parts import kafka as kafka_part
from parts.kafka import Cluster

KINDS = {
    "kill -9": {
        **{f"of the {role}": faults.kill(role) for role in ("receiver", "window", "inference", "sink")},
        "of all": faults.kill_all,
    },
    "a process that stands still": {
        f"the {role}": faults.pause(role) for role in ("receiver", "window", "inference", "sink")
    },
    "a target that takes nothing": {
        "but answers": faults.target("error"),
        "and says nothing": faults.target("hang"),
        "and is not there": faults.target("refuse"),
    },
    "a window worker comes and goes": {"again": faults.scale},
    "no inference": {"for longer than a horizon": faults.inference_away},
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_lost_and_no_score_differs_after(
    tmp_path: Path, kafka: Cluster, topic_prefix: str, kind: str
) -> None:
    outcome(on_kafka(tmp_path, kafka, topic_prefix), KINDS[kind])


@pytest.mark.timeout(300)
def test_nothing_is_lost_and_no_score_differs_when_clocks_jump(
    tmp_path: Path, kafka: Cluster, topic_prefix: str
) -> None:
    stage = on_kafka(tmp_path, kafka, topic_prefix, clock=Clock(tmp_path / "clock"))
    outcome(stage, {"ahead": faults.clock(600), "back": faults.clock(-600)})
    assert stage.room.stage.exits == []


@pytest.fixture(scope="module")
def three_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with kafka_part.cluster(tmp_path_factory.mktemp("kafka3"), nodes=3) as cluster:
        yield cluster


@pytest.mark.timeout(400)
def test_nothing_is_lost_when_a_leader_or_all_brokers_are_killed(
    tmp_path: Path, three_nodes: Cluster, topic_prefix: str
) -> None:
    stage = on_kafka(tmp_path, three_nodes, topic_prefix, broker={"replication": 3})
    outcome(stage, {"a leader": faults.leader, "another one": faults.leader, "all": faults.brokers_away})


@pytest.mark.timeout(300)
def test_a_record_that_nobody_can_read_is_set_aside_with_the_reason_and_the_rest_goes_on(
    tmp_path: Path, kafka: Cluster, topic_prefix: str
) -> None:
    stage = on_kafka(tmp_path, kafka, topic_prefix)
    outcome(stage, {"poison": faults.poison(POISON)})
    assert stage.room.stage.exits == []

    letters = dead_letters(stage, len(POISON) * 4)
    prefix = len(topic_prefix) + 1
    found = {(letter.topic[prefix:], letter.payload) for letter in letters}
    assert found == {(topic, value) for topic in TOPICS if topic != "dead-letter" for value in POISON}
    assert all(letter.reason and letter.detail for letter in letters)


def dead_letters(scene: Scene, count: int) -> list[pb.DeadLetter]:
    """Those of the product; not what the test wrote into their topic itself."""
    assert scene.cluster is not None
    settings = {
        "bootstrap.servers": scene.cluster.bootstrap,
        "group.id": "t",
        "auto.offset.reset": "earliest",
    }
    reader = Consumer(settings)
    reader.subscribe([f"{scene.topic_prefix}.dead-letter"])
    out = []
    try:
        while len(out) < count + len(POISON):
            (message,) = reader.consume(1, 20) or [None]
            assert message is not None, f"{len(out)} letters"
            out.append(message.value())
    finally:
        reader.close()
    return [pb.DeadLetter.FromString(value) for value in out if value not in POISON]
