"""Which forecasts on the broker are still needed: their topic is the log of the bands."""

from collections import deque
from collections.abc import Collection

from openanomaly.core.windows.block import Block


class ForecastLog:
    """When the forecast frames were written that may be needed again."""

    def __init__(self) -> None:
        self._written_ms: deque[tuple[int, int]] = deque()

    def take(self, offset: int, written_ms: int) -> None:
        self._written_ms.append((offset, written_ms))

    def oldest(self, blocks: Collection[Block], end: int, now_ms: int, *, is_repeat: bool) -> int:
        """Forecasts before this offset serve no row, or are two horizons old; `end` if none is needed.

        In a repeat age does not count: these steps were judged when the forecasts were young.
        """
        oldest = end
        keep_ms = 0
        for block in blocks:
            closed = block.state["closed"][: block.rows]
            for bands in block.bands.values():
                keep_ms = max(keep_ms, 2 * bands.horizon * block.spec.step_ms)
                serving = bands.oldest(block.rows, closed)
                oldest = oldest if serving is None else min(oldest, serving)
        while self._written_ms and (
            self._written_ms[0][0] < oldest or (self._written_ms[0][1] < now_ms - keep_ms and not is_repeat)
        ):
            self._written_ms.popleft()
        return self._written_ms[0][0] if self._written_ms else end
