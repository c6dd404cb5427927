"""A running `openanomaly`, as a process of its own."""

import contextlib
import json
import os
import signal
import sys
import urllib.error
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from parts.part import HOST, Process, answers, free_port, get, wait_until


class Product:
    """A command of `openanomaly` that listens on a port of its own, which it keeps over restarts."""

    def __init__(
        self, root: Path, *flags: str, command: str = "run", config: Mapping[str, Any] | None = None
    ) -> None:
        self.address = f"{HOST}:{free_port()}"
        self.url = f"http://{self.address}"
        words: list[str] = [
            sys.executable,
            "-m",
            "openanomaly.cli",
            command,
            "--listen",
            self.address,
            *flags,
        ]
        if config is not None:
            file = root / f"openanomaly-{command}.yaml"
            file.write_text(json.dumps(config))  # JSON is YAML
            words += ["--config", str(file)]
        self.process = Process(words, root / f"openanomaly-{command}.log")

    @property
    def write_url(self) -> str:
        return f"{self.url}/api/v1/write"

    def start(self, timeout_s: float = 60.0) -> None:
        """Returns when it is ready to take samples."""
        self.process.start()
        self.process.wait_until_ready(answers(f"{self.url}/-/ready"), timeout_s)

    def worker_pids(self) -> list[int]:
        """Its own process and those it started, children before parents."""
        found = [self.process.pid]
        for pid in found:
            for thread in Path(f"/proc/{pid}/task").glob("*/children"):
                found += [int(child) for child in thread.read_text().split()]
        return found[::-1]

    def stop(self) -> int:
        """A graceful end of it and of what it started; the exit status."""
        pids = self.worker_pids() if self.process.is_running else []
        status = self.process.stop(timeout_s=30)
        for pid in pids:
            kill_if_there(pid)
        return status

    def kill(self) -> None:
        """kill -9 of it and of all that it started, at once."""
        pids = self.worker_pids()
        self.process.kill()
        for pid in pids:
            kill_if_there(pid)

    def metrics(self) -> dict[str, float]:
        """Its own metrics: `name{labels}` as exposed -> value."""
        lines = get(f"{self.url}/metrics").decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def total(self, name: str) -> float:
        """The sum of a metric over its labels."""
        return sum(value for key, value in self.metrics().items() if key.split("{")[0] == name)

    def wait_until(self, is_true: Any, what: str, timeout_s: float = 60.0) -> None:
        """Like `wait_until`, and fails at once when the process has ended."""

        def true_or_dead() -> bool:
            assert self.process.is_running, f"openanomaly ended on its own:\n{self.process.tail()}"
            try:
                return bool(is_true())
            except urllib.error.URLError:
                return False

        wait_until(true_or_dead, what, timeout_s, every_s=0.3)


def kill_if_there(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it ended on its own


@contextlib.contextmanager
def openanomaly(
    root: Path, *flags: str, command: str = "run", config: Mapping[str, Any] | None = None
) -> Iterator[Product]:
    """`openanomaly COMMAND` from ready to its graceful end."""
    product = Product(root, *flags, command=command, config=config)
    try:
        product.start()
        yield product
    finally:
        product.stop()
