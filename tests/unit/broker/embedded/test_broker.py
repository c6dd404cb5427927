"""What the embedded broker promises to those who write and read."""

import asyncio
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from logs import KEPT, PLAIN, everything, opened
from openanomaly.broker.embedded.broker import Broker
from openanomaly.broker.topics import TopicSpec
from openanomaly.errors import BrokerError, BusUnavailableError, ConfigError

SMALL, LARGE = b"small", b"L" * 50_000


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def test_records_come_back_in_order_after_a_restart(tmp_path: Path) -> None:
    async def write() -> None:
        async with opened(tmp_path) as broker:
            futures = [broker.append("plain", i % 2, b"%d" % i, SMALL if i % 3 else LARGE) for i in range(40)]
            assert await asyncio.gather(*futures) == [i // 2 for i in range(40)]

    async def read() -> None:
        async with opened(tmp_path) as broker:
            for partition in (0, 1):
                records = await everything(broker, "plain", partition)
                numbers = range(partition, 40, 2)
                assert [r.offset for r in records] == list(range(20))
                assert [r.key for r in records] == [b"%d" % i for i in numbers]
                assert [r.value for r in records] == [SMALL if i % 3 else LARGE for i in numbers]
                assert broker.high_water(("plain", partition)) == 20

    asyncio.run(write())
    asyncio.run(read())


def test_empty_and_missing_values_are_told_apart(tmp_path: Path) -> None:
    async def go() -> None:
        async with opened(tmp_path) as broker:
            await asyncio.gather(broker.append("kept", 0, None, None), broker.append("kept", 0, b"", b""))
            first, second = await everything(broker, "kept")
            assert (first.key, first.value, second.key, second.value) == (None, None, b"", b"")

    asyncio.run(go())


def test_a_withdrawn_record_takes_no_offset(tmp_path: Path) -> None:
    async def go() -> None:
        async with opened(tmp_path) as broker:
            kept = broker.append("kept", 0, b"1", SMALL)
            withdrawn = broker.append("kept", 0, b"2", SMALL)
            last = broker.append("kept", 0, b"3", SMALL)
            withdrawn.cancel()
            assert await asyncio.gather(kept, last) == [0, 1]
            assert [r.key for r in await everything(broker, "kept")] == [b"1", b"3"]

    asyncio.run(go())


def test_a_fetch_is_bounded_and_gives_at_least_one_record(tmp_path: Path) -> None:
    async def go() -> None:
        async with opened(tmp_path) as broker:
            await asyncio.gather(*(broker.append("kept", 0, None, LARGE) for _ in range(10)))
            position = {("kept", 0): 0}
            assert len((await broker.fetch(position, 4, 10_000_000))["kept", 0]) == 4
            assert len((await broker.fetch(position, 100, 120_000))["kept", 0]) == 3
            assert len((await broker.fetch(position, 100, 1))["kept", 0]) == 1

    asyncio.run(go())


def test_a_reader_hears_of_a_commit(tmp_path: Path) -> None:
    async def go() -> None:
        async with opened(tmp_path) as broker:
            waiting = asyncio.create_task(broker.wait_for_news(60))
            await asyncio.sleep(0)
            await broker.append("kept", 0, None, SMALL)
            await asyncio.wait_for(waiting, 10)

    asyncio.run(go())


def test_committed_offsets_survive_and_never_go_back(tmp_path: Path) -> None:
    async def go() -> None:
        async with opened(tmp_path) as broker:
            await asyncio.gather(*(broker.append("kept", 0, None, SMALL) for _ in range(9)))
            await broker.commit("a", {("kept", 0): 7})
            await broker.commit("a", {("kept", 0): 3})
            await broker.commit("b", {("kept", 0): 1})
        async with opened(tmp_path) as broker:
            assert broker.committed("a", ("kept", 0)) == 7
            assert broker.committed("b", ("kept", 0)) == 1
            assert broker.committed("c", ("kept", 0)) is None

    asyncio.run(go())


def test_what_every_group_has_committed_is_deleted(tmp_path: Path) -> None:
    async def go() -> None:
        async with opened(tmp_path) as broker:
            for group in ("a", "b"):
                await broker.join(group, [("plain", 0)])
            await asyncio.gather(*(broker.append("plain", 0, None, LARGE) for _ in range(10)))
            await broker.commit("a", {("plain", 0): 8})
            await broker.tidy()
            assert [r.offset for r in await everything(broker, "plain")] == list(range(10))
            await broker.commit("b", {("plain", 0): 5})
            await broker.tidy()
            assert [r.offset for r in await everything(broker, "plain")] == list(range(5, 10))
            assert await broker.earliest([("plain", 0)]) == {("plain", 0): 5}

    asyncio.run(go())


def test_deletion_gives_the_disk_back(tmp_path: Path) -> None:
    def on_disk() -> int:
        return sum(f.stat().st_size for f in (tmp_path / "segments").iterdir())

    async def go() -> None:
        async with opened(tmp_path) as broker:
            await broker.join("a", [("plain", 0)])
            empty = broker.used_bytes
            await asyncio.gather(*(broker.append("plain", 0, None, LARGE) for _ in range(100)))
            assert broker.used_bytes >= empty + 100 * len(LARGE)
            await broker.commit("a", {("plain", 0): 100})
            await broker.tidy()
            assert broker.used_bytes < empty + len(LARGE)
        assert on_disk() < 1_000_000

    asyncio.run(go())


def test_retention_goes_by_age_read_or_not(tmp_path: Path) -> None:
    async def go() -> None:
        clock = Clock()
        async with opened(tmp_path, clock=clock) as broker:
            for value in (SMALL, LARGE, SMALL):
                await broker.append("plain", 0, None, value)
                await broker.append("kept", 0, None, value)
                clock.now += 1000
            clock.now += 3600 - 2000  # the second is exactly as old as may be
            await broker.tidy()
            assert [r.offset for r in await everything(broker, "plain")] == [1, 2]
            assert [r.offset for r in await everything(broker, "kept")] == [0, 1, 2]

    asyncio.run(go())


def test_offsets_go_on_where_an_emptied_partition_ended(tmp_path: Path) -> None:
    async def go() -> None:
        clock = Clock()
        async with opened(tmp_path, clock=clock) as broker:
            await asyncio.gather(*(broker.append("plain", 0, None, SMALL) for _ in range(5)))
            clock.now += 4000
            await broker.tidy()
            assert await broker.earliest([("plain", 0)]) == {("plain", 0): 5}
        async with opened(tmp_path, clock=clock) as broker:
            assert await broker.append("plain", 0, None, SMALL) == 5

    asyncio.run(go())


def test_compaction_keeps_the_last_record_of_each_key(tmp_path: Path) -> None:
    async def go() -> None:
        async with opened(tmp_path) as broker:
            for i in range(30):
                await broker.append("compact", 0, b"%d" % (i % 4), b"%d" % i * 3000)
            await broker.tidy()
        async with opened(tmp_path) as broker:
            records = await everything(broker, "compact")
            assert [(r.offset, r.key) for r in records] == [(26, b"2"), (27, b"3"), (28, b"0"), (29, b"1")]
            assert [r.value for r in records] == [b"%d" % i * 3000 for i in range(26, 30)]

    asyncio.run(go())


def test_two_versions_of_a_key_in_one_commit(tmp_path: Path) -> None:
    async def go() -> None:
        async with opened(tmp_path) as broker:
            await asyncio.gather(*(broker.append("compact", 0, b"k", b"%d" % i) for i in range(9)))
            assert [r.value for r in await everything(broker, "compact")] == [b"8"]

    asyncio.run(go())


def test_senders_are_refused_before_readers_at_the_disk_limit(tmp_path: Path) -> None:
    async def go() -> None:
        async with opened(tmp_path, disk_limit_bytes=3_000_000) as broker:
            await broker.join("a", [("edge", 0)])
            taken = 0

            async def append_until_refused() -> None:
                nonlocal taken
                while True:
                    await broker.append("edge", 0, None, LARGE)
                    taken += 1

            with pytest.raises(BusUnavailableError) as refusal:
                await append_until_refused()
            assert taken >= 45
            assert "broker.disk_limit_bytes=3000000" in str(refusal.value)
            assert str(tmp_path) in str(refusal.value)
            # Readers go on, and what they finish makes room again.
            await broker.append("kept", 0, None, LARGE)
            assert len(await everything(broker, "edge")) == taken
            await broker.commit("a", {("edge", 0): taken})
            await broker.tidy()
            assert await broker.append("edge", 0, None, LARGE) == taken
            assert broker.refused == 1

    asyncio.run(go())


def test_many_waiting_senders_do_not_pass_the_limit_together(tmp_path: Path) -> None:
    async def go() -> None:
        async with opened(tmp_path, disk_limit_bytes=3_000_000) as broker:
            futures = [broker.append("edge", 0, None, LARGE) for _ in range(200)]
            done = await asyncio.gather(*futures, return_exceptions=True)
            refused = [d for d in done if isinstance(d, BusUnavailableError)]
            assert 0 < len(refused) < 200
            assert broker.used_bytes <= 3_000_000

    asyncio.run(go())


def test_another_number_of_partitions_is_refused_with_both_numbers(tmp_path: Path) -> None:
    async def go() -> None:
        async with opened(tmp_path) as broker:
            with pytest.raises(ConfigError, match=r"topic plain has 2 .* says 5: set broker.partitions to 2"):
                await broker.create(TopicSpec("plain", 5, 3600.0))
            with pytest.raises(ConfigError, match="topic kept cannot change its compaction"):
                await broker.create(TopicSpec("kept", 1, None, compact=True))

    asyncio.run(go())


def test_new_retention_is_taken_over(tmp_path: Path) -> None:
    async def go() -> None:
        clock = Clock()
        async with opened(tmp_path, PLAIN, clock=clock) as broker:
            await broker.append("plain", 0, None, SMALL)
        async with opened(tmp_path, TopicSpec("plain", 2, 60.0), clock=clock) as broker:
            clock.now += 100
            await broker.tidy()
            assert await everything(broker, "plain") == []

    asyncio.run(go())


def test_unknown_topics_and_partitions_are_named(tmp_path: Path) -> None:
    async def go() -> None:
        async with opened(tmp_path) as broker:
            for topic, partition in (("nothing", 0), ("kept", 1), ("kept", -1)):
                with pytest.raises(BrokerError, match=f"no partition {partition} of topic {topic}"):
                    broker.append(topic, partition, None, SMALL)

    asyncio.run(go())


def test_a_second_process_is_refused_and_told_who_has_the_folder(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from openanomaly.broker.embedded.broker import Broker
Broker(Path({str(tmp_path)!r}))
"""

    async def go() -> None:
        async with opened(tmp_path):
            done = await asyncio.to_thread(
                subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True, check=False
            )
            assert done.returncode == 1
            assert f"BrokerError: {tmp_path} is in use by process {os.getpid()}." in done.stderr
        again = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        assert again.returncode == 0, again.stderr

    asyncio.run(go())


def test_users_of_one_process_share_it_and_the_last_one_closes(tmp_path: Path) -> None:
    async def go() -> None:
        first, second = Broker.open(tmp_path), Broker.open(tmp_path)
        assert first is second
        await first.create(KEPT)
        await first.release()
        assert await second.append("kept", 0, None, SMALL) == 0
        await second.release()
        third = Broker.open(tmp_path)
        assert third is not first
        await third.release()

    asyncio.run(go())


def test_closing_writes_what_is_pending(tmp_path: Path) -> None:
    async def go() -> None:
        async with opened(tmp_path) as broker:
            pending = [broker.append("kept", 0, None, SMALL) for _ in range(20)]
        assert [future.result() for future in pending] == list(range(20))
        async with opened(tmp_path, KEPT) as broker:
            assert len(await everything(broker, "kept")) == 20

    asyncio.run(go())


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BrokerError, match=r"cannot use .*/file/log .*set broker.url"):
        Broker(tmp_path / "file" / "log")


def test_superseded_records_give_their_disk_back_and_what_lives_stays(tmp_path: Path) -> None:
    async def go() -> None:
        for round_ in range(6):
            async with opened(tmp_path) as broker:
                if not round_:
                    await broker.append("compact", 0, b"old", LARGE)
                for i in range(10):
                    await broker.append("compact", 0, b"new", LARGE[:-1] + bytes([10 * round_ + i]))
                await broker.tidy()
        async with opened(tmp_path) as broker:
            await broker.tidy()
            found = await everything(broker, "compact")
            assert [(r.key, r.value) for r in found] == [(b"old", LARGE), (b"new", LARGE[:-1] + bytes([59]))]
            assert broker.used_bytes < 10 * len(LARGE)

    asyncio.run(go())


def test_a_segment_that_cannot_be_removed_takes_no_record_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EIO, "Input/output error")

    def segments() -> int:
        return len(list(tmp_path.rglob("*.seg")))

    async def go() -> None:
        async with opened(tmp_path) as broker:
            for key in (b"old", b"new", b"new", b"new", b"new", b"new"):
                await broker.append("compact", 0, key, LARGE)
        async with opened(tmp_path) as broker:
            with monkeypatch.context() as patch:
                patch.setattr(Path, "unlink", refuse)
                await broker.append("compact", 0, b"new", LARGE[::-1])
                await broker.tidy()  # moves what lives of the first segment, which is left then
                await broker.append("compact", 0, b"new", LARGE)
            assert [(r.key, r.value) for r in await everything(broker, "compact")] == [
                (b"old", LARGE),
                (b"new", LARGE),
            ]
        assert segments() == 2
        async with opened(tmp_path) as broker:
            assert len(await everything(broker, "compact")) == 2
        assert segments() == 1

    asyncio.run(go())
