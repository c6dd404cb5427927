"""A disk without space: refused with a reason, nothing half written, and on again when there is some."""

import asyncio
import contextlib
import errno
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from logs import everything, opened
from openanomaly.errors import BusUnavailableError

LARGE = b"L" * 100_000


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Files of this process cannot grow beyond `size`; writes fail as on a full disk (EFBIG)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.parametrize("size", [10, 100_000], ids=["index", "segments"])
def test_writes_fail_clearly_and_go_on_afterwards(tmp_path: Path, size: int) -> None:
    async def go() -> None:
        async with opened(tmp_path) as broker:
            taken = 0

            async def append_until_refused() -> None:
                nonlocal taken
                while True:
                    futures = [broker.append("kept", 0, b"%d" % i, b"v" * size) for i in range(20)]
                    await asyncio.gather(*futures)
                    taken += 20

            with largest_file(1_500_000):
                with pytest.raises(BusUnavailableError, match=f"cannot write to {tmp_path}"):
                    await append_until_refused()
                # All of a commit or nothing of it.
                assert broker.high_water(("kept", 0)) == taken
                assert len(await everything(broker, "kept")) == taken
            futures = [broker.append("kept", 0, b"%d" % i, b"v" * size) for i in range(20)]
            assert await asyncio.gather(*futures) == list(range(taken, taken + 20))
        async with opened(tmp_path) as broker:
            records = await everything(broker, "kept")
            assert [r.offset for r in records] == list(range(taken + 20))
            assert {r.value for r in records} == {b"v" * size}

    asyncio.run(go())


def test_offsets_that_cannot_be_written_are_not_committed(tmp_path: Path) -> None:
    async def go() -> None:
        async with opened(tmp_path) as broker:
            await broker.append("kept", 0, None, b"v")
            with largest_file(1):
                with pytest.raises(BusUnavailableError):
                    await broker.commit("a", {("kept", 0): 1})
                assert broker.committed("a", ("kept", 0)) is None
            await broker.commit("a", {("kept", 0): 1})
        async with opened(tmp_path) as broker:
            assert broker.committed("a", ("kept", 0)) == 1

    asyncio.run(go())


def test_a_segment_whose_name_could_not_be_synced_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def go() -> None:
        async with opened(tmp_path) as broker:
            with monkeypatch.context() as patch:
                patch.setattr("openanomaly.broker.embedded.segments.os.fsync", no_space)
                with pytest.raises(BusUnavailableError, match="No space left"):
                    await broker.append("kept", 0, None, LARGE)
            assert await broker.append("kept", 0, None, LARGE) == 0
        async with opened(tmp_path) as broker:
            assert [r.value for r in await everything(broker, "kept")] == [LARGE]

    asyncio.run(go())
