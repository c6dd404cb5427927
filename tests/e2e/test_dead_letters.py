"""`openanomaly dead-letter` against a running product: scores that a target refused, put back by a person."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer

from e2e.pushed import Fleet
from e2e.sender import HEADERS, push, request
from e2e.test_target import CONFIG, WARMUP
from openanomaly.pb.openanomaly.v1 import frames_pb2 as pb
from parts.kafka import Cluster
from parts.product import Product, openanomaly
from scores import Sample
from targets import Target

TOKEN, ROOT = "t0ken", "r00t"
WEB = {"auth": {"bearer_token": TOKEN}, "admin_auth": {"bearer_token": ROOT}}
BAD = "host-3"


def refuse(found: list[Sample]) -> int | None:
    return 400 if any(dict(labels)["host"] == BAD for labels, _, _ in found) else None


class Command:
    """The command as somebody on another machine runs it."""

    def __init__(self, folder: Path, product: Product) -> None:
        self._folder = folder
        ours = {k: v for k, v in os.environ.items() if not k.startswith("OPENANOMALY_")}
        self.environ = {**ours, "OPENANOMALY_URL": product.url, "OPENANOMALY_TOKEN": ROOT}

    def __call__(self, *words: str, status: int = 0, **environ: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "openanomaly.cli", "dead-letter", *words],
            cwd=self._folder,
            env={**self.environ, **environ},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        assert ROOT not in done.stdout + done.stderr
        return done.stdout + done.stderr

    def letters(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self("list", "--json"))
        return found


@pytest.mark.timeout(180)
def test_scores_that_a_target_refused_are_put_back_by_the_command(tmp_path: Path) -> None:
    fleet = Fleet(hosts=5, steps=100)

    def hosts(target: Target) -> dict[str, set[int]]:
        found: dict[str, set[int]] = {f"host-{i}": set() for i in range(5)}
        for labels, timestamp_ms, _ in list(target.taken):
            found[dict(labels)["host"]].add(timestamp_ms)
        return found

    def drive(product: Product, target: Target) -> None:
        command = Command(tmp_path, product)
        assert command("list") == "no dead letters\n"
        headers = {**HEADERS, "Authorization": f"Bearer {TOKEN}"}
        push(product.write_url, request(fleet.samples(0, 100)), headers=headers)
        judged = 5 * (100 - WARMUP)  # with the last step, which the clock closes

        def settled() -> bool:
            written = product.total("openanomaly_sink_scores_written_total")
            return written + product.total("openanomaly_sink_scores_dropped_total") >= judged

        product.wait_until(settled, "scores written or refused")
        before = hosts(target)
        assert not before[BAD]

        assert "401" in command("list", status=1, OPENANOMALY_TOKEN=TOKEN)
        letters = command.letters()
        assert {x["reason"] for x in letters} == {"RejectedError"}
        refused = sum(x["payload"]["samples"] for x in letters)
        assert refused == len(before["host-0"])
        listed = command("list", "--topic", "scores", "--limit", "1").splitlines()
        assert listed[0].split() == ["ID", "WHEN", "STATE", "REASON", "RECORD", "PAYLOAD", "DETAIL"]
        assert "set aside  RejectedError  openanomaly.scores[" in listed[1]
        assert "400" in listed[1]
        first = letters[-1]
        shown = command("show", str(first["id"]))
        assert f"offset {first['offset']}" in shown
        command("show", str(first["id"]), "--payload", "payload")
        assert (tmp_path / "payload").stat().st_size == first["payload_bytes"]

        # Nothing has changed: the target refuses it again, and it is another letter.
        command("replay", str(first["id"]))
        product.wait_until(lambda: len(command.letters()) == len(letters) + 1, "refused again")
        assert "replayed before" in command("replay", str(first["id"]), status=1)

        target.script = []
        assert command("replay", "--all", "--dry-run").endswith(
            f"{len(letters)} of {len(letters)} could be replayed\n"
        )
        said = command("replay", "--all")
        assert said.endswith(f"{len(letters)} of {len(letters)} replayed\n")
        product.wait_until(lambda: hosts(target)[BAD] == before["host-0"], "the scores")
        assert all(x["replays"] for x in command.letters())
        assert command("replay", "--all").endswith("0 of 0 replayed\n")

    async def run() -> None:
        async with Target(script=refuse).running() as target:

            def product() -> None:
                pipelines = [{**pipeline, "group_by": []} for pipeline in CONFIG["pipelines"]]
                config = {**CONFIG, "pipelines": pipelines, "web": WEB}
                flags = ("--broker", f"embedded://{tmp_path / 'broker'}", "--write-to", target.url)
                with openanomaly(tmp_path, *flags, config=config) as found:
                    drive(found, target)

            await asyncio.to_thread(product)

    asyncio.run(run())


@pytest.mark.timeout(120)
def test_a_process_that_sets_nothing_aside_answers_for_those_that_do(
    tmp_path: Path, kafka: Cluster, topic_prefix: str
) -> None:
    """On Kafka whichever process is asked sees all letters: here the receiver, the first of all to start."""
    payload = b"a record that nobody can read"
    letter = pb.DeadLetter(
        version=1,
        reason="MalformedFrameError",
        topic=f"{topic_prefix}.samples",
        partition=2,
        offset=41,
        detail="not a SampleFrame",
        payload=payload,
        noted_ms=1_700_000_000_000,
        set_aside=True,
    )
    config = {**CONFIG, "web": WEB, "broker": {"partitions": 4, "topic_prefix": topic_prefix}}
    with openanomaly(tmp_path, "--broker", kafka.url, command="receiver", config=config) as product:
        command = Command(tmp_path, product)
        assert command("list") == "no dead letters\n"
        servers = {"bootstrap.servers": kafka.url.removeprefix("kafka://"), "log_level": 0}
        producer = Producer(servers)
        producer.produce(f"{topic_prefix}.dead-letter", letter.SerializeToString(), partition=0)
        producer.flush(10)
        (shown,) = command.letters()
        assert (shown["offset"], shown["payload"]["kind"]) == (41, "SampleFrame")
        assert "not a SampleFrame" in shown["payload"]["unreadable"]
        assert command("replay", "0") == (
            f"0: replayed to {topic_prefix}.samples[2] offset 0\n1 of 1 replayed\n"
        )
        consumer = Consumer({**servers, "group.id": topic_prefix, "auto.offset.reset": "earliest"})
        consumer.subscribe([f"{topic_prefix}.samples"])
        record = consumer.poll(30)
        consumer.close()
        assert record is not None
        assert (record.partition(), record.key(), record.value()) == (2, None, payload)
