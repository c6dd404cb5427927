"""Keeps a worker process alive: `openanomaly run` is this and one child.

A worker that meets an error it cannot answer for exits, so that nothing is acknowledged that was
not done. Under systemd or Kubernetes they start it again; on a laptop this does.
"""

import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from types import FrameType

from openanomaly.exits import CONFIG, CRASH

log = logging.getLogger(__name__)

_BACKOFF_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_STABLE_S = 60.0
"""A worker that ran so long has earned a fresh start of the back-off."""
_STOP_S = 15.0


class Supervisor:
    """Runs `command` until it ends of its own will, or somebody ends us."""

    def __init__(
        self,
        command: Sequence[str],
        backoff_s: Sequence[float] = _BACKOFF_S,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._command = list(command)
        self._backoff_s = backoff_s
        self._sleep = sleep
        self._child: subprocess.Popen[bytes] | None = None
        self._stopping = False

    def run(self) -> int:
        """The exit status to end with: 0 after a stop, the child's if it cannot be helped."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        failures = 0
        while True:
            started = time.monotonic()
            # The child gets its signals from us: a terminal's Ctrl-C would reach it twice.
            self._child = subprocess.Popen(self._command, start_new_session=True, env=_child_env())
            status = self._wait()
            if self._stopping:
                return 0 if status in (0, -signal.SIGTERM, -signal.SIGINT) else CRASH
            if status in (0, CONFIG):
                return status
            failures = 1 if time.monotonic() - started > _STABLE_S else failures + 1
            wait_s = self._backoff_s[min(failures, len(self._backoff_s)) - 1]
            log.error("the worker ended with status %d; starting it again in %.1f s", status, wait_s)
            self._sleep(wait_s)
            if self._stopping:
                return 0

    def _wait(self) -> int:
        assert self._child is not None
        deadline = None
        while True:
            try:
                return self._child.wait(0.5)
            except subprocess.TimeoutExpired:
                if self._stopping:
                    deadline = deadline or time.monotonic() + _STOP_S
                    if time.monotonic() > deadline:
                        log.error("the worker did not stop within %.0f s; killing it", _STOP_S)
                        self._child.kill()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(signal.SIGTERM)


def _child_env() -> dict[str, str]:
    return {**os.environ, "OPENANOMALY_SUPERVISOR": str(os.getpid())}
