"""The port of forecasting models."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Precision = Literal["tf32", "float32"]
"""How finely a GPU multiplies: with eleven bits or with 24; sums have 24."""


class ModelEngine(Protocol):
    """Turns context windows into quantile forecasts. Called from one thread at a time."""

    name: str
    """What logs, metrics and `model:` settings call it."""

    device: str
    """Where it computes: `cpu`, `cuda:0`."""

    max_context: int
    """Steps beyond which a longer context is cut to its newest part."""

    horizon_step: int
    """Steps of one pass: a forecast of fewer is the beginning of one of so many, at the same cost."""

    fixed_shapes: bool
    """Whether batches are filled up to a few sizes, so that compiled graphs are reused."""

    def predict(
        self, context: NDArray[np.float32], horizon: int, quantiles: Sequence[float]
    ) -> NDArray[np.float32]:
        """Forecast every row of `context`, independently of the other rows.

        Missing steps before the first known one change nothing: contexts of several lengths are
        made one by filling up their old end.

        Args:
            context: (B, T) float32, oldest first, NaN for a missing step.
            horizon: H, at least 1.
            quantiles: Q levels in (0, 1), ascending.

        Returns:
            (B, H, Q) float32, ascending along Q, never NaN.

        Raises:
            ForecastError: the batch could not run; no row has a result. Its reason "memory" asks
                for smaller batches.
        """
        ...


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Memory of a device that has its own, in bytes.

    Attributes:
        total: all of it.
        free: what no process has taken.
        reserved: what this process holds, for the present batch and for the next ones.
        allocated: of that, what is in use at this moment.
    """

    total: int
    free: int
    reserved: int
    allocated: int


@runtime_checkable
class TellsMemory(Protocol):
    """What an engine on a GPU may have besides. Nobody needs it: an engine without it is a whole one."""

    device: str

    def device_memory(self) -> DeviceMemory | None:
        """Memory of `device`; None where it has none of its own, as the processor.

        Asked at each scrape, from another thread than `predict` and while that runs. Of several engines on
        one device one is asked.
        """
        ...
