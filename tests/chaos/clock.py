"""A wall clock of Python processes that a test can move while they run.

Each process replaces `time.time` before it imports anything else. Monotonic time stays what it is, as it
does where a real clock is set. (libfaketime would do it for any program, but Python's `time.sleep` fails
with it.)
"""

import os
import struct
from pathlib import Path

_PATCH = """\
import mmap, struct, time

with open({file!r}, "rb") as f:
    _offset = mmap.mmap(f.fileno(), 8, prot=mmap.PROT_READ)
_true, _true_ns = time.time, time.time_ns


def _moved():
    return _true() + struct.unpack("<d", _offset[:8])[0]


time.time = _moved
time.time_ns = lambda: int(_moved() * 1e9)
"""


class Clock:
    """`env` is for the processes whose clock this is."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.furthest_s = 0.0
        """How far ahead it has been."""
        self._file = folder / "offset"
        self.move(0)
        (folder / "sitecustomize.py").write_text(_PATCH.format(file=str(self._file)))
        paths = [str(folder), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        self.env = {"PYTHONPATH": os.pathsep.join(filter(None, paths))}

    def move(self, seconds: float) -> None:
        """Set it so many seconds before or behind the true time."""
        self.furthest_s = max(self.furthest_s, seconds)
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("<d", seconds))
