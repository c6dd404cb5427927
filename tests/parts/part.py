"""What all real parts share: where they are kept, what happens when one is missing, how they run.

A part is a real program that tests speak to: a broker, a sender, a store. It listens on a free port
of the loopback interface only, writes its log beside its files and is stopped by its process id.
"""

import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

HOST = "127.0.0.1"
_given_out: set[int] = set()
_libc = ctypes.CDLL(None, use_errno=True)


class PartError(Exception):
    """A part is there but does not start or answer."""


def is_ci() -> bool:
    return os.environ.get("CI", "").lower() in ("1", "true", "yes")


def home() -> Path:
    """Where installed parts are kept: `.parts/` of the checkout, or `OPENANOMALY_PARTS`."""
    path = Path(os.environ.get("OPENANOMALY_PARTS") or Path(__file__).parents[2] / ".parts")
    path.mkdir(parents=True, exist_ok=True)
    return path.resolve()


@contextlib.contextmanager
def installing(name: str) -> Iterator[None]:
    """One process at a time: tests run in several, and the first of each may find the part missing."""
    with (home() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def missing(what: str, command: str) -> None:
    """Ends a test that needs a part which is not here: skipped on a laptop, an error with CI=true."""
    reason = f"{what} is not installed; to install it: {command}"
    if is_ci():
        pytest.fail(f"CI must not skip: {reason}", pytrace=False)
    pytest.skip(reason)


def free_port() -> int:
    """A port of the loopback interface that nobody listens on, and that was not given out before.

    Taken below the range from which the kernel picks ports of outgoing connections, so that none of
    those can sit on it by the time the part listens.
    """
    first = 10_000 + os.getpid() * 2_003 % 20_000
    for port in range(first, first + 2_000):
        if port in _given_out:
            continue
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        _given_out.add(port)
        return port
    raise PartError(f"no free port in {first}..{first + 2_000}")


def get(url: str, timeout_s: float = 5.0) -> bytes:
    """The body behind `url`; raises OSError when it does not answer with 2xx."""
    with urllib.request.urlopen(url, timeout=timeout_s) as answer:
        body: bytes = answer.read()
    return body


def wait_until(
    is_true: Callable[[], object], what: str, timeout_s: float = 30.0, every_s: float = 0.1
) -> None:
    """Returns as soon as `is_true()`; OSError counts as not yet."""
    end = time.monotonic() + timeout_s
    error: object = None
    while time.monotonic() < end:
        try:
            if is_true():
                return
        except OSError as exc:
            error = exc
        time.sleep(every_s)
    raise PartError(f"{what}: not within {timeout_s:g} s" + (f" ({error})" if error else ""))


def _die_with_parent() -> None:
    # A test run that is killed must leave no server behind: PR_SET_PDEATHSIG.
    _libc.prctl(1, signal.SIGKILL)


class Process:
    """One running program of a part."""

    def __init__(
        self, command: Sequence[str | Path], log: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.command = [str(word) for word in command]
        self.log = log
        self.env = env
        self.popen: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert self.popen is None, "already running"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        # Settings of whoever runs the tests, and of the tests themselves, are none of the product's.
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("OPENANOMALY_")}
        with self.log.open("ab") as out:
            self.popen = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**inherited, **(self.env or {})},
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    @property
    def pid(self) -> int:
        assert self.popen is not None, "not running"
        return self.popen.pid

    @property
    def is_running(self) -> bool:
        return self.popen is not None and self.popen.poll() is None

    def wait_until_ready(self, is_ready: Callable[[], object], timeout_s: float = 30.0) -> None:
        def ready_or_dead() -> bool:
            if not self.is_running:
                raise PartError(f"{self.command[0]} ended on its own:\n{self.tail()}")
            return bool(is_ready())

        try:
            wait_until(ready_or_dead, self.command[0], timeout_s)
        except PartError as exc:
            raise PartError(f"{exc}\n{self.tail()}") from exc

    def stop(self, timeout_s: float = 15.0) -> int:
        """Asks it to end (SIGTERM) and insists after `timeout_s`; returns the exit status."""
        if self.popen is None:
            return 0
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.popen.kill()
        return self._forget()

    def wait(self, timeout_s: float) -> int:
        """The exit status, once it has ended on its own."""
        assert self.popen is not None, "not running"
        try:
            self.popen.wait(timeout_s)
        except subprocess.TimeoutExpired as exc:
            self.kill()
            raise PartError(f"{self.command[0]} runs on after {timeout_s} s:\n{self.tail()}") from exc
        return self._forget()

    def kill(self) -> None:
        """SIGKILL, as a power loss would do it to a process."""
        assert self.popen is not None, "not running"
        self.popen.kill()
        self._forget()

    def _forget(self) -> int:
        assert self.popen is not None
        status = self.popen.wait()
        self.popen = None
        return status

    def tail(self, lines: int = 30) -> str:
        """The end of its log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


@contextlib.contextmanager
def running(process: Process) -> Iterator[Process]:
    """`process` from its start to its stop."""
    process.start()
    try:
        yield process
    finally:
        process.stop()


def answers(url: str) -> Callable[[], bool]:
    """Whether `url` answers with 2xx."""

    def ask() -> bool:
        try:
            get(url, timeout_s=1.0)
        except urllib.error.HTTPError:
            return False
        return True

    return ask
