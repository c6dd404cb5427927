"""A window worker that is older than its changelog ends with a word to a person, and is not started again."""

import asyncio
from pathlib import Path

from e2e.pushed import Fleet
from e2e.sender import push, request
from e2e.test_target import CONFIG
from openanomaly.broker.embedded.broker import Broker
from openanomaly.core.windows import records
from openanomaly.pb.openanomaly.v1 import changelog_pb2 as pb
from parts.product import Product, openanomaly

CHANGELOG = "openanomaly-window-state-changelog"


async def write_as_a_newer_release(folder: Path) -> None:
    broker = Broker.open(folder)
    try:
        assert broker.high_water((CHANGELOG, 0)) > 0
        value = pb.StatePage(version=3, block=4711).SerializeToString()
        await broker.append(CHANGELOG, 0, records.key(records.HOT, 4711, 0), value)
    finally:
        await broker.release()


def test_a_changelog_of_a_newer_release_ends_the_process_with_status_2(tmp_path: Path) -> None:
    folder = tmp_path / "broker"
    config = {**CONFIG, "broker": {"partitions": 1}}
    with openanomaly(tmp_path, "--broker", f"embedded://{folder}", config=config) as product:
        push(product.write_url, request(Fleet(hosts=3, steps=20).samples(0, 20)))
        product.wait_until(lambda: product.total("openanomaly_window_series") == 3, "the series")
    asyncio.run(write_as_a_newer_release(folder))

    older = Product(tmp_path, "--broker", f"embedded://{folder}", config=config)
    older.process.start()
    try:
        assert older.process.wait(60) == 2
        said = older.process.tail()
        assert "StatePage has version 3, this release reads up to 2" in said
        assert "run the release that wrote it" in said
    finally:
        older.stop()
