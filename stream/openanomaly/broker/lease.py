"""Whether the group still counts on us: what one thread hears of it, and another asks before it writes."""

import time
from collections.abc import Callable


class Lease:
    """Valid for a session after the last word of the group that we are a member.

    A process that stood still for longer may have been replaced: what it had on its way must not come
    behind the back of whoever took its place. Monotonic time goes on while a process stands still.
    """

    def __init__(self, session_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._session_s = session_s
        self._clock = clock
        self._until_s = float("inf")
        """Without a group nobody can take our place."""

    @property
    def is_valid(self) -> bool:
        return self._clock() < self._until_s

    @property
    def is_over(self) -> bool:
        """Whether somebody has taken our place: it does not become valid again by itself."""
        return self._until_s == float("-inf")

    def renew(self, asked_s: float) -> None:
        """The group confirmed what was asked at `asked_s`: its own clock began then, or later."""
        self._until_s = asked_s + self._session_s

    def end(self) -> None:
        """The group said that it has gone on without us."""
        self._until_s = float("-inf")
