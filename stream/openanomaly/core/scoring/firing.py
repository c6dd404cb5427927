"""How often an alert rule on scores would have fired: `expr: anomaly_score > LEVEL`, `for: WAIT`."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LOOKBACK_MS = 300_000
"""How long Prometheus and VictoriaMetrics show a sample that no other one follows."""


@dataclass(frozen=True, slots=True)
class Firings:
    """(N,) alerts, in the order of time.

    Attributes:
        from_ms: when the score went above the level.
        fired_ms: when it had been there for as long as the rule waits.
        until_ms: when it was there no more.
    """

    from_ms: NDArray[np.int64]
    fired_ms: NDArray[np.int64]
    until_ms: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.from_ms)


def firings(
    end_ms: NDArray[np.int64],
    score: NDArray[np.floating],
    level: float,
    wait_ms: int,
    shown_ms: int = LOOKBACK_MS,
    late_ms: int = 0,
) -> Firings:
    """The alerts of one series, as of the times of its scores.

    Args:
        end_ms: (N,) ends of its steps, ascending: the timestamps that scores are written at.
        score: (N,) NaN where there is none.
        level: that a score has to be above.
        wait_ms: `for` of the rule.
        shown_ms: how long the rule sees a score that no other one follows.
        late_ms: how long after the end of its step a score is written; the one before is seen until then, if
            it still is.
    """
    written = np.isfinite(score)
    time, above = end_ms[written], score[written] > level
    shown_until = time + max(shown_ms - late_ms, 0)
    shown_until[:-1] = np.minimum(shown_until[:-1], time[1:])
    # A run ends with a score that is not above, or where the last one is shown no more.
    goes_on = above[:-1] & above[1:] & (shown_until[:-1] == time[1:])
    first = np.flatnonzero(above & ~np.concatenate([[False], goes_on])[: len(above)])
    last = np.flatnonzero(above & ~np.concatenate([goes_on, [False]])[-len(above) :])
    from_ms, until_ms = time[first], shown_until[last]
    has_fired = until_ms - from_ms > wait_ms
    return Firings(from_ms[has_fired], from_ms[has_fired] + wait_ms, until_ms[has_fired])
