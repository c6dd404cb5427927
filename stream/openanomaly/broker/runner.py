"""Runs the Faust apps of one process in one event loop."""

import asyncio
import logging
from collections.abc import Sequence

from openanomaly.broker.faust_app import App

log = logging.getLogger(__name__)


class Runner:
    """Starts apps together, notices the first that crashes, stops all."""

    def __init__(self, apps: Sequence[App]) -> None:
        self.apps = list(apps)
        self._starts: list[asyncio.Task[None]] = []

    async def ensure_topics(self) -> None:
        """Make the topics of all apps exist.

        Raises:
            ConfigError: one exists otherwise.
            BusUnavailableError: the broker cannot be reached.
        """
        for app in self.apps:
            app.finalize()
            await app.ensure_topics()

    def start(self) -> None:
        """Begin; an app with tables is up once it has recovered, which may take long."""
        for app in self.apps:
            self._starts.append(asyncio.create_task(self._start(app), name=f"start {app.role}"))

    @staticmethod
    async def _start(app: App) -> None:
        await app.start()
        app.is_up = True
        log.info("%s started", app.conf.id)

    async def wait(self, stop: asyncio.Event) -> None:
        """Return when `stop` is set.

        Raises:
            BaseException: why an app crashed, or could not start.
        """
        waits = [asyncio.create_task(stop.wait())]
        waits += [asyncio.create_task(app._crashed.wait()) for app in self.apps]
        try:
            pending = {*waits, *self._starts}
            while not stop.is_set():
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done & set(self._starts):
                    task.result()
                for app in self.apps:
                    if app.crashed:
                        raise app.crash_reason or RuntimeError(f"{app.conf.id} crashed")
        finally:
            for task in waits:
                task.cancel()

    async def commit(self) -> None:
        """Write released offsets now."""
        for app in self.apps:
            if not app.producer_only and app.started and not app.crashed:
                await app.consumer.commit()

    async def stop(self) -> None:
        """Stop all apps and let go of the broker."""
        for task in self._starts:
            task.cancel()
        await asyncio.gather(*self._starts, return_exceptions=True)
        for app in self.apps:
            try:
                await app.stop()
            except Exception:
                log.exception("%s did not stop cleanly", app.conf.id)
        for app in self.apps:
            await app.close_transports()
