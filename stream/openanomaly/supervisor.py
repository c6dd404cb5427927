"""Keeps a worker process alive: `openanomaly run` is this and one child.

A worker that meets an error it cannot answer for exits, so that nothing is acknowledged that was
not done. Under systemd or Kubernetes they start it again; on a laptop this does.
"""

import logging
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from types import FrameType

from openanomaly.exits import CONFIG, CRASH
from openanomaly.settings.sources import SUPERVISOR_VARIABLE

log = logging.getLogger(__name__)

_BACKOFF_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_STABLE_S = 60.0
"""A worker that ran so long has earned a fresh start of the back-off."""
_STOP_S = 15.0
"""A worker that does not end within this, though told to, is killed."""
_SLICE_S = 0.1
"""How soon a signal is noticed: Python goes on sleeping after its handler has run."""


class Supervisor:
    """Runs `command` until it ends of its own will, or somebody ends us."""

    def __init__(
        self, command: Sequence[str], backoff_s: Sequence[float] = _BACKOFF_S, stop_s: float = _STOP_S
    ) -> None:
        self._command = list(command)
        self._backoff_s = backoff_s
        self._stop_s = stop_s
        self._signal: int | None = None

    def run(self) -> int:
        """The exit status to end with: 0 after a stop, the child's if it cannot be helped."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        failures = 0
        while not self._is_stopping():
            started = time.monotonic()
            # The child gets its signals from us: a terminal's Ctrl-C would reach it twice.
            child = subprocess.Popen(self._command, start_new_session=True, env=_child_env())
            status = self._wait(child)
            if self._is_stopping():
                return 0 if status in (0, -signal.SIGTERM, -signal.SIGINT) else CRASH
            if status in (0, CONFIG):
                return status
            failures = 1 if time.monotonic() - started > _STABLE_S else failures + 1
            wait_s = self._backoff_s[min(failures, len(self._backoff_s)) - 1]
            log.error("the worker ended with status %d; starting it again in %.1f s", status, wait_s)
            self._pause(wait_s)
        return 0

    def _wait(self, child: subprocess.Popen[bytes]) -> int:
        """The status of a child that ended, of its own will or because we are to stop."""
        kill_s = None
        while True:
            try:
                return child.wait(_SLICE_S)
            except subprocess.TimeoutExpired:
                if not self._is_stopping():
                    continue
            if kill_s is None:
                child.send_signal(signal.SIGTERM)
                kill_s = time.monotonic() + self._stop_s
            elif time.monotonic() > kill_s:
                log.error("the worker did not stop within %.0f s; killing it", self._stop_s)
                child.kill()

    def _pause(self, wait_s: float) -> None:
        """Wait, but not for longer than somebody wants us."""
        end_s = time.monotonic() + wait_s
        while (left_s := end_s - time.monotonic()) > 0 and not self._is_stopping():
            time.sleep(min(left_s, _SLICE_S))

    def _is_stopping(self) -> bool:
        return self._signal is not None

    def _stop(self, number: int, frame: FrameType | None) -> None:
        # Only noted: a child may be just starting, and no lock may be taken here.
        self._signal = number


def _child_env() -> dict[str, str]:
    return {**os.environ, SUPERVISOR_VARIABLE: str(os.getpid())}
