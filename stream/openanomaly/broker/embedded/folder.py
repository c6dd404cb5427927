"""The folder of the log: one process at a time has it."""

import fcntl
import os
from pathlib import Path
from typing import IO

from openanomaly.errors import BrokerError


def hold(folder: Path) -> IO[str]:
    """Hold the folder for this process. The lock goes with the process, however it ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / "LOCK", "a+", encoding="ascii")  # noqa: SIM115 - held while we live
    except OSError as exc:
        raise BrokerError(
            f"cannot use {folder} for the embedded broker: {exc.strerror}; set broker.url"
        ) from exc
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise BrokerError(
            f"{folder} is in use by process {holder}. The embedded broker serves one process: stop that one, "
            "give this one another broker.url, or use kafka://"
        ) from None
    file.seek(0)
    file.truncate()
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def sync(folder: Path) -> None:
    """Have the names in a folder survive a power loss."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
