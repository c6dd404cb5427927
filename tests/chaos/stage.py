"""The product on a stage: its processes, and the supervisor that production has for them."""

import asyncio
import os
import re
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parts.part import PartError, answers
from parts.product import Product

_LOOK_S = 0.1
_WAIT_S = 1.0
"""How long a supervisor waits before it starts a process again."""


@dataclass(frozen=True)
class Exit:
    """A process that ended without being told to."""

    name: str
    status: int
    words: str


@dataclass(frozen=True)
class Stopped:
    """A process that was asked to end."""

    name: str
    status: int
    seconds: float


@dataclass
class Member:
    """A process that is meant to run, or not; `paused` while it is stopped by SIGSTOP."""

    name: str
    product: Product
    is_wanted: bool = True
    rss_bytes: int = 0
    paused: list[int] = field(default_factory=list)

    @property
    def role(self) -> str:
        return self.name.partition("-")[0]


class Stage:
    """Processes by name: `receiver-1`, `window-1`, `window-2`, ...; `run-1` is one with all roles.

    Attributes:
        exits: processes that ended on their own, which the supervisor started again.
        stops: how each graceful end went.
    """

    def __init__(
        self,
        root: Path,
        broker_url: str,
        target_url: str,
        config: Mapping[str, Any],
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.members: dict[str, Member] = {}
        self.exits: list[Exit] = []
        self.stops: list[Stopped] = []
        self._root, self._config = root, dict(config)
        self._flags = ("--broker", broker_url, "--write-to", target_url)
        self._env = dict(env or {})

    def add(self, name: str) -> Member:
        """A further process, which the supervisor starts."""
        folder = self._root / name
        folder.mkdir(parents=True, exist_ok=True)
        product = Product(folder, *self._flags, command=name.partition("-")[0], config=self._config)
        product.process.env = self._env
        member = self.members[name] = Member(name, product)
        return member

    def of(self, role: str) -> list[Member]:
        return [m for m in self.members.values() if m.role == role and m.is_wanted]

    async def supervise(self) -> None:
        """Start what should run and does not, a second after it ended; until cancelled."""
        gone: dict[str, float] = {}
        while True:
            for member in self.members.values():
                process = member.product.process
                if not member.is_wanted or process.is_running:
                    continue
                if process.popen is not None:
                    status = process.popen.wait()
                    process.popen = None
                    self.exits.append(Exit(member.name, status, process.tail(12)))
                since = gone.setdefault(member.name, time.monotonic())
                if time.monotonic() - since >= (_WAIT_S if process.log.exists() else 0):
                    del gone[member.name]
                    process.start()
            await asyncio.sleep(_LOOK_S)

    async def ready(self, timeout_s: float = 120.0) -> None:
        """Returns when every process that is wanted says so of itself."""
        for member in list(self.members.values()):
            if member.is_wanted:
                await self.wait_until_ready(member, timeout_s)

    async def wait_until_ready(self, member: Member, timeout_s: float = 120.0) -> None:
        end_s = time.monotonic() + timeout_s
        ask = answers(f"{member.product.url}/-/ready")
        while time.monotonic() < end_s:
            try:
                if await asyncio.to_thread(ask):
                    return
            except OSError:
                pass
            await asyncio.sleep(0.2)
        raise PartError(f"{member.name} is not ready after {timeout_s:g} s\n{member.product.process.tail()}")

    def kill(self, member: Member) -> None:
        """kill -9 of a process and all that it started."""
        if member.product.process.is_running:
            member.product.kill()

    def kill_worker(self, member: Member) -> None:
        """kill -9 of what `openanomaly run` watches over; it starts another one."""
        for pid in member.product.worker_pids()[:-1]:
            _signal(pid, signal.SIGKILL)

    async def stop(self, member: Member) -> Stopped:
        """Ask a process to end; it stays away until `start`."""
        member.is_wanted = False
        began_s = time.monotonic()
        status = await asyncio.to_thread(member.product.stop)
        stopped = Stopped(member.name, status, time.monotonic() - began_s)
        self.stops.append(stopped)
        return stopped

    def start(self, member: Member) -> None:
        member.is_wanted = True

    def pause(self, member: Member) -> None:
        """Stop a process as a hypervisor would: it notices nothing but the clock."""
        member.paused = member.product.worker_pids()
        for pid in member.paused:
            _signal(pid, signal.SIGSTOP)

    def resume(self, member: Member) -> None:
        for pid in member.paused:
            _signal(pid, signal.SIGCONT)
        member.paused = []

    async def close(self) -> None:
        """Stop all, the ones that write last."""
        for role in ("receiver", "window", "inference", "sink", "run"):
            for member in self.of(role):
                self.resume(member)
                if member.product.process.is_running:
                    await self.stop(member)
        for member in self.members.values():
            self.kill(member)

    def look_at_memory(self) -> None:
        """Note how much each process has come to."""
        for member in self.members.values():
            if member.product.process.is_running:
                used = sum(_rss_bytes(pid) for pid in member.product.worker_pids())
                member.rss_bytes = max(member.rss_bytes, used)

    async def metrics(self, member: Member) -> dict[str, float]:
        return await asyncio.to_thread(member.product.metrics)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass  # it ended on its own


def _rss_bytes(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0
