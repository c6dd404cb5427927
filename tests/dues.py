"""Due frames for tests, and an engine that does as it is told."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.contexts import Contexts
from openanomaly.core.frames import DueFrame
from openanomaly.core.ports.model_engine import DeviceMemory
from openanomaly.errors import ForecastError

F32 = NDArray[np.float32]
FAR_MS = 1 << 50
HORIZON = 4
MEMORY = DeviceMemory(total=80, free=50, reserved=20, allocated=10)


def due_frame(first: int, rows: int = 3, steps: int = 64, **changes: object) -> DueFrame:
    """A frame for rows `first`, `first` + 1, ...; the context of row r is the constant r."""
    row = np.arange(first, first + rows, dtype=np.uint32)
    fields: dict[str, object] = {
        "partition": 1,
        "block": 77,
        "forecaster": 5,
        "model": "auto",
        "horizon": HORIZON,
        "step_ms": 60_000,
        "row": row,
        "generation": row + 100,
        "origin": row.astype(np.int64) + 1000,
        "context": Contexts.pack(np.repeat(row.astype(np.float32)[:, None], steps, axis=1)),
        "closed_ms": 0,
        "useful_until_ms": FAR_MS,
    }
    return DueFrame(**{**fields, **changes})  # type: ignore[arg-type]


class Echo:
    """Forecasts the last value of each context. Fails where its rule, given the last values, does."""

    name = "echo"
    device = "cpu"

    def __init__(
        self,
        rule: Callable[[list[float]], None] = lambda last: None,
        fixed_shapes: bool = False,
        max_context: int = 512,
        horizon_step: int = 1,
    ) -> None:
        self.rule = rule
        self.fixed_shapes = fixed_shapes
        self.max_context = max_context
        self.horizon_step = horizon_step
        self.calls: list[tuple[int, ...]] = []

    def predict(self, context: F32, horizon: int, quantiles: Sequence[float]) -> F32:
        self.calls.append(context.shape)
        last = context[:, -1]
        self.rule(last.tolist())
        out = np.repeat(last[:, None], horizon * len(quantiles), axis=1)
        return out.reshape(len(last), horizon, len(quantiles))


class OnDevice(Echo):
    """An engine on a GPU that says of its memory what it is given, or raises it."""

    def __init__(self, device: str, memory: DeviceMemory | Exception = MEMORY) -> None:
        super().__init__()
        self.device = device
        self._memory = memory

    def device_memory(self) -> DeviceMemory:
        if isinstance(self._memory, Exception):
            raise self._memory
        return self._memory


def spoiled_by(bad: set[float], reason: str = "engine") -> Callable[[list[float]], None]:
    """An engine whose batch fails when one of these values is in it."""

    def rule(last: list[float]) -> None:
        if bad & set(last):
            raise ForecastError("a row spoils the batch", reason)

    return rule


def memory_for(rows: int) -> Callable[[list[float]], None]:
    """An engine that runs out of memory beyond some rows."""

    def rule(last: list[float]) -> None:
        if len(last) > rows:
            raise ForecastError("out of memory", "memory")

    return rule
