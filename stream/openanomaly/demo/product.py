"""The product under the fleet: `openanomaly run`'s worker, with a broker in a folder of its own."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from openanomaly.errors import ConfigError, OpenAnomalyError
from openanomaly.settings import Settings
from openanomaly.settings.sources import PREFIX, SUPERVISOR_VARIABLE, load

STEP_S = 300
HOST = "127.0.0.1"
LOG = "openanomaly.log"

DEVIATIONS: dict[str, Any] = {
    "pipelines": [{"name": "demo", "step_s": STEP_S}],
    # Every score, and beside it what was expected: it tells which scores had a forecast.
    "sink": {"emit": "all", "series": ["anomaly_score", "yhat"]},
    # A step of five minutes takes a tenth of a second here: contexts do not wait long for others.
    "inference": {"max_wait_s": 0.01},
    # One block of a few hundred rows, not sixteen of a dozen: each costs the same.
    "broker": {"partitions": 1},
}
"""What the demo sets beside addresses; all else is as in `openanomaly run`."""

_OURS = ("broker.url", "web.listen", "sink.url", "sink.series", "sink.emit", "sink.external_labels")
_READY_S = 60.0
_STOP_S = 15.0


class DemoError(OpenAnomalyError):
    """The demo cannot go on."""


class Product:
    """One worker process, from `start` to `stop`."""

    def __init__(self, folder: Path, port: int, flags: Mapping[str, str]) -> None:
        """Write its settings.

        Raises:
            ConfigError: a flag is no setting, or is for the demo to set.
        """
        if taken := [name for name in flags if name in _OURS]:
            raise ConfigError(f"--set {taken[0]}: the demo sets it itself")
        self.url = f"http://{HOST}:{port}"
        self.log = folder / LOG
        file = folder / "openanomaly.yaml"
        file.write_text(yaml.safe_dump(DEVIATIONS))
        own = {
            "broker.url": f"embedded://{folder / 'broker'}",
            "web.listen": f"{HOST}:{port}",
        }
        self.settings = check({**flags, **own}, file)
        words = [f"--set={name}={value}" for name, value in {**flags, **own}.items()]
        command = [sys.executable, "-m", "openanomaly.cli", "run", "--worker", "--config", str(file)]
        self._command = command + words
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, target_url: str) -> None:
        """Start it; its scores go to `target_url`."""
        # Settings of a product that the user runs are not the demo's: its broker least of all.
        environ = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX) or k.endswith("_COMPILED")}
        # The worker stops when we are gone, however we went.
        environ[SUPERVISOR_VARIABLE] = str(os.getpid())
        with self.log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                f"--write-to={target_url}",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environ,
                start_new_session=True,  # a terminal's Ctrl-C is for us alone
            )

    async def ready(self, session: aiohttp.ClientSession) -> None:
        """Wait until it takes samples.

        Raises:
            DemoError: it did not within a minute.
        """
        try:
            async with asyncio.timeout(_READY_S):
                while not await self._is_ready(session):  # noqa: ASYNC110 (nothing tells)
                    await asyncio.sleep(0.1)
        except TimeoutError as exc:
            raise DemoError(f"the product was not ready in {_READY_S:.0f} s") from exc

    async def _is_ready(self, session: aiohttp.ClientSession) -> bool:
        try:
            async with session.get(f"{self.url}/-/ready") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    async def ended(self) -> None:
        """Waits for its end, which is an error: nobody told it to.

        Raises:
            DemoError: it has ended.
        """
        assert self._process is not None
        status = await self._process.wait()
        raise DemoError(f"the product ended with status {status}")

    async def stop(self) -> None:
        """End it, and wait for that."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), _STOP_S)
        except TimeoutError:
            process.kill()
            await process.wait()


def check(flags: Mapping[str, str], file: Path) -> Settings:
    """The product's settings.

    Raises:
        ConfigError: something is wrong with them, or steps are not the demo's.
    """
    settings = load(str(file), {}, flags)
    if any(p.step_s != STEP_S for p in settings.pipelines) or len(settings.pipelines) != 1:
        raise ConfigError(f"--set pipelines: the demo needs one pipeline, with step_s: {STEP_S}")
    return settings


def free_port(port: int) -> int:
    """`port` if nobody listens there; a free one for 0.

    Raises:
        ConfigError: somebody does.
    """
    with closing(socket.socket()) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((HOST, port))
        except OSError as exc:
            raise ConfigError(
                f"cannot listen on {HOST}:{port}: {exc.strerror}; choose another --port"
            ) from exc
        found: int = one.getsockname()[1]
        return found
