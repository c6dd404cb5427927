"""An installation that moved to another broker scores as if it had stayed."""

import asyncio
import functools
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from e2e import moving
from e2e.moving import AFTER, STEPS, Fleet
from openanomaly.broker.embedded.broker import Broker
from openanomaly.broker.embedded.folder import hold
from openanomaly.errors import BrokerError
from parts.kafka import Cluster
from parts.part import HOST, free_port, wait_until
from parts.product import Product, openanomaly
from parts.recorder import recorder

Target = tuple[str, int]


@pytest.fixture(params=["embedded", "kafka"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    """Where to, and to how many partitions."""
    if request.param == "embedded":
        return f"embedded://{tmp_path / 'after'}", 3
    cluster: Cluster = request.getfixturevalue("kafka")
    return cluster.url, 6


def lived(tmp_path: Path, prefix: str, *, is_killed: bool) -> tuple[Fleet, str, float, int]:
    """A fleet that has a past on an embedded broker.

    Its scores are unread, since the target of the sink is away. If its process was killed, no checkpoint was
    written, and the samples that came last have closed no step.

    Returns:
        The fleet, the broker, how many series have a forecast, and how many samples came last.
    """
    fleet, url = Fleet(), f"embedded://{tmp_path / 'before'}"
    nowhere = f"http://{HOST}:{free_port()}/api/v1/write"
    root = tmp_path / "lived"
    root.mkdir()
    product = Product(root, "--broker", url, "--write-to", nowhere, config=moving.config(4, prefix))
    try:
        product.start()
        for step in range(0, STEPS, 4):
            fleet.send(product, step, step + 4)
        forecasts = moving.when_quiet(product)["openanomaly_window_series_with_forecast"]
        last = fleet.send(product, STEPS - 1, STEPS, at_ms=30_000)
        if is_killed:
            product.kill()
            wait_until(functools.partial(is_let_go, tmp_path / "before"), "the end of the process", 30)
        else:
            moving.when_quiet(product)
            assert product.stop() == 0
    finally:
        moving.stop_if_running(product)
    assert forecasts > 15
    return fleet, url, forecasts, last


def is_let_go(folder: Path) -> bool:
    try:
        hold(folder).close()
    except BrokerError:
        return False
    return True


def contents(folder: Path) -> dict[str, object]:
    """Every record and every offset in an embedded broker."""

    async def read() -> dict[str, object]:
        broker = Broker.open(folder, tidies=False)
        try:
            out: dict[str, object] = {"committed": {g: dict(c) for g, c in broker._committed.items()}}
            for topic, (_, spec) in broker._store.topics.items():
                places = {(topic, p): 0 for p in range(spec.partitions)}
                for place, found in (await broker.fetch(places, 10**6, 1 << 30)).items():
                    out[str(place)] = [(*record,) for record in found]
            return out
        finally:
            await broker.release()

    return asyncio.run(read())


@pytest.mark.timeout(400)
@pytest.mark.parametrize("is_killed", [False, True], ids=["stopped", "killed"])
def test_scores_after_the_move_are_those_of_the_run_that_stayed(
    tmp_path: Path, topic_prefix: str, target: Target, is_killed: bool
) -> None:
    fleet, source, forecasts, last = lived(tmp_path, topic_prefix, is_killed=is_killed)
    url, partitions = target
    before = contents(tmp_path / "before")

    done = moving.migrate(
        tmp_path, source, url, moving.config(4, topic_prefix), "--partitions", str(partitions)
    )

    assert moving.count(done, "series") == len(fleet.values)
    assert moving.count(done, "unread samples") == (last if is_killed else 0)
    assert contents(tmp_path / "before") == before, "the source is as it was"
    found = []
    for name, broker, count in (("stayed", source, 4), ("moved", url, partitions)):
        root = tmp_path / name
        root.mkdir()
        settings = moving.config(count, topic_prefix)
        with (
            recorder() as target_of,
            openanomaly(root, "--broker", broker, "--write-to", target_of.url, config=settings) as product,
        ):
            moving.go_on(product, fleet, forecasts)
            product.wait_until(functools.partial(moving.is_written, fleet, target_of), "scores")
            product.stop()
            found.append(moving.scores(target_of))
            assert is_killed or moving.in_order(target_of)
    stayed, moved = found
    assert len(stayed) > 2500
    assert moved == stayed
    ends = [fleet.scored_ms(step) for step in range(STEPS - 20, STEPS + AFTER - 1)]
    odd = {t: v for (labels, t), v in moved.items() if dict(labels).get("host") == "host-0" and v > 1}
    assert any(t >= fleet.scored_ms(STEPS) for t in odd), "an episode is open when it moves"
    for labels in {labels for labels, _ in moved if dict(labels)["pipeline"] == "all"}:
        there = [t for t in ends if (labels, t) in moved]
        assert there in (ends, []), labels


@pytest.mark.timeout(240)
def test_who_was_interrupted_leaves_nothing_that_runs(tmp_path: Path, topic_prefix: str) -> None:
    fleet, source, _, _ = lived(tmp_path, topic_prefix, is_killed=False)
    url, settings = f"embedded://{tmp_path / 'after'}", moving.config(64, topic_prefix)
    words = moving.command(tmp_path, source, url, settings)
    with subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any(line.startswith("partition ") for line in process.stderr)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL

    file = tmp_path / "moving.yaml"
    listen = f"{HOST}:{free_port()}"
    run = [sys.executable, "-m", "openanomaly.cli", "run", "--broker", url, "--config", str(file)]
    ended = subprocess.run(
        [*run, "--listen", listen], capture_output=True, text=True, timeout=120, check=False
    )
    again = moving.migrate(tmp_path, source, url, settings)

    assert ended.returncode == 2
    assert f"only a part of what was moved here from {source}" in ended.stdout + ended.stderr
    assert again.returncode == 2
    assert f"a part of what was moved there from {source}" in again.stderr
    assert f"move the folder of {url} away" in again.stderr
    shutil.rmtree(tmp_path / "after")
    assert moving.count(moving.migrate(tmp_path, source, url, settings), "series") == len(fleet.values)


@pytest.mark.timeout(240)
def test_what_cannot_be_moved_is_refused(tmp_path: Path, topic_prefix: str, kafka: Cluster) -> None:
    _, source, _, _ = lived(tmp_path, topic_prefix, is_killed=False)
    settings = moving.config(2, topic_prefix)
    url = f"embedded://{tmp_path / 'after'}"

    dry = moving.migrate(tmp_path, source, url, settings, "--dry-run")
    assert "would move" in dry.stdout
    assert not (tmp_path / "after").exists()
    assert moving.migrate(tmp_path, source, url, settings).returncode == 0
    full = moving.migrate(tmp_path, source, url, settings)
    assert full.returncode == 2
    assert f"topic {topic_prefix}.forecasts in {url} has had records" in full.stderr
    nothing = moving.migrate(tmp_path, f"embedded://{tmp_path / 'none'}", url, settings)
    assert (nothing.returncode, "there is no embedded broker" in nothing.stderr) == (2, True)
    other = moving.migrate(tmp_path, source, kafka.url, settings, "--source-prefix", "other")
    assert (other.returncode, "no topic other.samples" in other.stderr) == (2, True)
    config = moving.config(4, topic_prefix)
    with openanomaly(tmp_path, "--broker", source, config=config):
        busy = moving.migrate(tmp_path, source, kafka.url, settings)
    assert (busy.returncode, "is in use by process" in busy.stderr) == (2, True)
    with openanomaly(tmp_path, "--broker", kafka.url, command="window", config=config):
        busy = moving.migrate(tmp_path, source, kafka.url, config)
    assert busy.returncode == 2
    assert f"group {topic_prefix}-window in {kafka.url} has 1 members" in busy.stderr
