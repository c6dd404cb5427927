"""How far a long command is: a bar on a terminal, now and then a line elsewhere."""

import shutil
import time
from collections.abc import Callable
from typing import TextIO

_WIDTH = 28
_EVERY_S = 0.2
_LINE_EVERY_S = 30.0


class Progress:
    """Tells of work of a known size."""

    def __init__(
        self, file: TextIO, size: int, noun: str, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._file = file
        self._size = size
        self._noun = noun
        self._clock_s = clock_s
        self._began_s = clock_s()
        self._is_terminal = file.isatty()
        self._next_s = self._began_s if self._is_terminal else self._began_s + _LINE_EVERY_S
        self._shown = False

    def at(self, done: int) -> None:
        """So much is done."""
        now_s = self._clock_s()
        if now_s < self._next_s and (done < self._size or not self._shown):
            return
        self._next_s = now_s + (_EVERY_S if self._is_terminal else _LINE_EVERY_S)
        self._shown = True
        share = done / self._size if self._size else 1.0
        seconds = now_s - self._began_s
        rate = done / seconds if seconds > 0 else 0.0
        text = f"{share:4.0%}  {done:,} of {self._size:,} {self._noun}"
        if rate > 0:
            text += f"  {rate:,.0f}/s  {_duration((self._size - done) / rate)} left"
        if not self._is_terminal:
            print(text.strip(), file=self._file, flush=True)
            return
        filled = round(share * _WIDTH)
        columns = shutil.get_terminal_size((100, 0)).columns
        line = f"[{'#' * filled}{'-' * (_WIDTH - filled)}] {text}"
        print(f"\r\x1b[K{line[: columns - 1]}", end="", file=self._file, flush=True)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._is_terminal and self._shown:
            print("\r\x1b[K", end="", file=self._file, flush=True)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
