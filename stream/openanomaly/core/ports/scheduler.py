"""The port of schedulers: jobs that recur by the wall clock."""

from collections.abc import Callable
from typing import Protocol


class Scheduler(Protocol):
    """Runs jobs in threads of its own, several side by side, each at most once at a time."""

    def every(self, name: str, period_ms: int, offset_ms: int, job: Callable[[], None]) -> None:
        """Run `job` once at the start, and then whenever Unix time is k * `period_ms` + `offset_ms`.

        Times that pass while the job is at work, waits for a thread, or the machine sleeps, are one run
        afterwards, or none if the next time is there: what a job does must not depend on how often it ran.
        An exception of a job is logged, and its next run comes.

        Args:
            name: of the job. Another one of that name takes its place, once a run at work has ended.
            offset_ms: in [0, `period_ms`).
        """
        ...

    def remove(self, name: str) -> None:
        """Begin no further run of a job; one that is at work ends on its own."""
        ...

    def start(self) -> None:
        """Begin; jobs may be added before and after."""
        ...

    def stop(self, timeout_s: float) -> bool:
        """Begin no further run, and wait for those at work; whether they ended in time."""
        ...
