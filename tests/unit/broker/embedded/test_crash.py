"""kill -9 of a real process that writes: nothing it was told to be durable is missing afterwards."""

import asyncio
import random
import subprocess
import sys
from pathlib import Path

import pytest

from logs import everything, opened

WRITER = """
import asyncio, sys
from pathlib import Path
from openanomaly.broker.embedded.broker import Broker
from openanomaly.broker.topics import TopicSpec

SIZES = (10, 5_000, 400_000)

async def main():
    broker = Broker.open(Path(sys.argv[1]))
    await broker.create(TopicSpec("log", 2, 3600.0))
    await broker.create(TopicSpec("state", 1, None, compact=True))
    await broker.join("reader", [("log", 0), ("log", 1)])
    number = broker.high_water(("log", 0))
    while True:
        value = bytes([number % 251]) * SIZES[number % 3]
        sent = [broker.append("log", p, b"%d" % number, value) for p in (0, 1)]
        sent.append(broker.append("state", 0, b"%d" % (number % 5), b"%d" % number))
        offsets = await asyncio.gather(*sent)
        if number % 20 == 19:
            await broker.commit("reader", {("log", 0): number - 10})
            await broker.tidy()
        print(number, *offsets, flush=True)
        number += 1

asyncio.run(main())
"""
SIZES = (10, 5_000, 400_000)


def _run_until_killed(folder: Path, acknowledgements: int) -> list[list[int]]:
    """Lines the writer printed before it was killed in the middle of its work."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        lines = [writer.stdout.readline() for _ in range(acknowledgements)]
        writer.kill()
        lines += writer.stdout.read().splitlines()
    return [[int(n) for n in line.split()] for line in lines if line.strip()]


@pytest.mark.parametrize("seed", range(3))
def test_what_was_acknowledged_survives(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(3):
        told = _run_until_killed(tmp_path, chance.randrange(5, 60))
        number, *offsets = told[-1]
        assert offsets[:2] == [number, number]
        asyncio.run(_check(tmp_path, number))


async def _check(folder: Path, last: int) -> None:
    async with opened(folder) as broker:
        for partition in (0, 1):
            records = await everything(broker, "log", partition)
            offsets = [r.offset for r in records]
            assert offsets == list(range(offsets[0], broker.high_water(("log", partition))))
            assert offsets[-1] >= last
            committed = broker.committed("reader", ("log", partition)) or 0
            assert offsets[0] <= committed
            for r in records:
                assert r.key == b"%d" % r.offset
                assert r.value == bytes([r.offset % 251]) * SIZES[r.offset % 3]
        state = {r.key: int(r.value or b"") for r in await everything(broker, "state")}
        newest = max(state.values())
        assert newest >= last
        assert len(state) == len(await everything(broker, "state")) == 5
        assert sorted(state.values()) == list(range(newest - 4, newest + 1))
