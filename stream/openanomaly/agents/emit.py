"""Whether windows send every score to the sink, or those of episodes."""

import logging
from typing import Literal

from openanomaly.core.windows.output import Emit

log = logging.getLogger(__name__)


class EmitChoice:
    """`sink.emit`; `auto` is every score up to `limit` series of all workers, and episodes beyond.

    Series are spread evenly over partitions: what is in ours tells of what is in all, and all workers
    choose alike.

    Attributes:
        chosen: None before the first choice.
    """

    def __init__(self, setting: Literal["auto", "all", "episodes"], limit: int) -> None:
        self.chosen: Emit | None = None
        self._setting = setting
        self._limit = limit

    def choose(self, held: int, partitions: int, of_partitions: int) -> Emit:
        """What to send with so many series in so many of the partitions; a change is logged."""
        everywhere = round(held * of_partitions / max(partitions, 1))
        if self._setting == "auto":
            emit: Emit = "all" if everywhere <= self._limit else "episodes"
        else:
            emit = self._setting
        if emit != self.chosen:
            self.chosen = emit
            log.info(
                "emitting %s scores (%d series in %d of %d partitions, %d in all; "
                "sink.emit=%s, sink.emit_all_limit=%d)",
                "all" if emit == "all" else "episodes'",
                held,
                partitions,
                of_partitions,
                everywhere,
                self._setting,
                self._limit,
            )
        return emit
