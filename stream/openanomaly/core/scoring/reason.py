"""Why a score is high: the channel that spoke, and its side."""

from enum import IntEnum

CHANNELS = ("value", "mean_12", "mean_48", "error", "surprise", "quiet", "froze")
"""Names of the channels, in the order of their numbers."""

VALUE, MEAN_12, MEAN_48, ERROR, SURPRISE, QUIET, FROZE = range(7)


class Reason(IntEnum):
    """1 + 2 x channel, and 1 more for the lower side; 0 where nothing spoke."""

    NONE = 0
    VALUE_ABOVE = 1
    VALUE_BELOW = 2
    MEAN_12_ABOVE = 3
    MEAN_12_BELOW = 4
    MEAN_48_ABOVE = 5
    MEAN_48_BELOW = 6
    ERROR_ABOVE = 7
    ERROR_BELOW = 8
    SURPRISE_ABOVE = 9
    SURPRISE_BELOW = 10
    QUIET = 11
    FROZE = 13
    OUT_OF_RANGE = 15
    """Outside the pipeline's `data_range`."""

    @property
    def text(self) -> str:
        """For people: what is odd about the series."""
        return _TEXT[self]


_TEXT = {
    Reason.NONE: "normal",
    Reason.VALUE_ABOVE: "higher than it was in memory",
    Reason.VALUE_BELOW: "lower than it was in memory",
    Reason.MEAN_12_ABOVE: "higher for 12 steps than it was in memory",
    Reason.MEAN_12_BELOW: "lower for 12 steps than it was in memory",
    Reason.MEAN_48_ABOVE: "higher for 48 steps than it was in memory",
    Reason.MEAN_48_BELOW: "lower for 48 steps than it was in memory",
    Reason.ERROR_ABOVE: "further above its forecast than it was in memory",
    Reason.ERROR_BELOW: "further below its forecast than it was in memory",
    Reason.SURPRISE_ABOVE: "above its forecast for 12 steps, as never in memory",
    Reason.SURPRISE_BELOW: "below its forecast for 12 steps, as never in memory",
    Reason.QUIET: "moves less than it did in memory",
    Reason.FROZE: "has not changed for longer than it did in memory",
    Reason.OUT_OF_RANGE: "outside its allowed range",
}
