"""The Scheduler of APScheduler 3: jobs in a pool of threads, by the wall clock."""

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from apscheduler.events import EVENT_JOB_MAX_INSTANCES, JobSubmissionEvent
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

log = logging.getLogger(__name__)


class APSchedulerAdapter:
    """A Scheduler. `late` is told the name of a job that was still at work when its next time came."""

    def __init__(self, threads: int, late: Callable[[str], None] = lambda name: None) -> None:
        # It warns of each run that is left out; those are counted by `late`.
        logging.getLogger("apscheduler").setLevel(logging.ERROR)
        self._scheduler = BackgroundScheduler(
            executors={"default": ThreadPoolExecutor(threads)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
            timezone=UTC,
        )
        self._late = late
        self._scheduler.add_listener(self._left_out, EVENT_JOB_MAX_INSTANCES)
        self._idle = threading.Condition()
        self._working = 0
        self._is_stopping = False

    def every(self, name: str, period_ms: int, offset_ms: int, job: Callable[[], None]) -> None:
        self._scheduler.add_job(
            self._run, Grid(period_ms, offset_ms), args=(name, job), id=name, replace_existing=True
        )

    def remove(self, name: str) -> None:
        self._scheduler.remove_job(name)

    def start(self) -> None:
        self._scheduler.start()

    def stop(self, timeout_s: float) -> bool:
        end_s = time.monotonic() + timeout_s
        with self._idle:
            self._is_stopping = True
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
        with self._idle:
            return self._idle.wait_for(lambda: not self._working, end_s - time.monotonic())

    def _run(self, name: str, job: Callable[[], None]) -> None:
        with self._idle:
            if self._is_stopping:  # it waited for a thread meanwhile
                return
            self._working += 1
        try:
            job()
        except Exception:  # a job that fails once comes again, and the others with it
            log.exception("%s crashed; its next run is tried", name)
        finally:
            with self._idle:
                self._working -= 1
                self._idle.notify_all()

    def _left_out(self, event: JobSubmissionEvent) -> None:
        self._late(event.job_id)


class Grid(BaseTrigger):  # type: ignore[misc]  # APScheduler has no types
    """At once, and then whenever Unix time is k * period + offset."""

    def __init__(self, period_ms: int, offset_ms: int) -> None:
        self._period_ms = period_ms
        self._offset_ms = offset_ms

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> Any:
        """The first time of the grid behind the last one, and not in the past."""
        if previous_fire_time is None:
            return now
        # Whole milliseconds: an interval of floats would drift off the boundaries of steps.
        after_ms = max(_ms(previous_fire_time) + 1, _ms(now))
        turn = -((self._offset_ms - after_ms) // self._period_ms)
        return datetime.fromtimestamp((turn * self._period_ms + self._offset_ms) / 1000, UTC)


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)
