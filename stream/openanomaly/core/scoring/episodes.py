"""Episodes: from the first score above the alert level until enough quiet steps have passed."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.frames import ScoreFlag

_START, _OPEN, _END = (np.uint8(f) for f in (ScoreFlag.START | ScoreFlag.OPEN, ScoreFlag.OPEN, ScoreFlag.END))


@dataclass(frozen=True, slots=True)
class Episodes:
    """The episode of each of n rows. Changed in place.

    Attributes:
        left: quiet steps until it ends; 0 where there is none.
        start: bucket of its first step; stays when it has ended.
        peak: its highest score, and `reason` what that one said; they stay too.
    """

    left: NDArray[np.int32]
    start: NDArray[np.int64]
    peak: NDArray[np.float32]
    reason: NDArray[np.uint8]

    def follow(
        self,
        bucket: NDArray[np.int64],
        score: NDArray[np.float32],
        reason: NDArray[np.uint8],
        alert_score: float,
        quiet: int,
    ) -> NDArray[np.uint8]:
        """Take one more step of every row; (n,) the ScoreFlags START, OPEN and END.

        A high score in an open episode is no new alarm, and neither is what follows within `quiet`
        steps: the echo of a forecast error when the series comes back is such a one.
        """
        flags = np.zeros(len(score), np.uint8)
        alarm = score > np.float32(alert_score)
        at = np.flatnonzero(alarm | (self.left > 0))
        if not at.size:
            return flags
        high, was = alarm[at], self.left[at] > 0
        left = np.where(high, np.int32(quiet), self.left[at] - 1)
        self.left[at] = left
        flags[at] = np.where(high & ~was, _START, np.where(left > 0, _OPEN, _END))
        begun = at[high & ~was]
        self.start[begun] = bucket[begun]
        self.peak[begun] = -np.inf
        new = at[score[at] > self.peak[at]]
        self.peak[new], self.reason[new] = score[new], reason[new]
        return flags
