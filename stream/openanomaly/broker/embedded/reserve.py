"""Disk kept aside, so that a full disk can be emptied again: deleting needs a little space too."""

import os
from pathlib import Path

RESERVE_BYTES = 16 << 20


class Reserve:
    """A file of `RESERVE_BYTES` that is given up when the disk is full and taken again afterwards."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.is_held = False
        self.take()

    def take(self) -> None:
        """Hold the space again, if there is some."""
        if self.is_held:
            return
        try:
            fd = os.open(self._path, os.O_CREAT | os.O_WRONLY, 0o640)
        except OSError:
            return
        try:
            os.posix_fallocate(fd, 0, RESERVE_BYTES)
            self.is_held = True
        except OSError:
            os.ftruncate(fd, 0)
        finally:
            os.close(fd)

    def give_up(self) -> bool:
        """Free the space; False if there was none."""
        held, self.is_held = self.is_held, False
        if held:
            os.truncate(self._path, 0)
        return held
