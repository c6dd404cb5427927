"""One batch through an engine that may fail: what can be forecast is, whatever its neighbours are."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.ports.model_engine import ModelEngine
from openanomaly.errors import ForecastError

log = logging.getLogger(__name__)

F32 = NDArray[np.float32]


class Observer(Protocol):
    """Hears what became of batches and of their contexts."""

    def batch(self, model: str, rows: int, seconds: float, steps: int, padding: int) -> None:
        """A batch ran over so many steps of all contexts, of which so many belonged to none."""

    def forecast(self, rows: int) -> None:
        """Rows have a forecast."""

    def dropped(self, reason: str, rows: int) -> None:
        """Rows have none: `unknown_model`, or the reason of a ForecastError."""


@dataclass(slots=True)
class Outcome:
    """What became of a batch of B contexts.

    Attributes:
        forecast: (B, H, Q) float32, defined where `ok`.
        ok: (B,) whether a row has a forecast.
        failed: rows without one, by reason.
        fits: rows that fitted into memory when the batch did not, else None.
        works: whether the engine forecast anything, if only a plain context; None if it was not asked.
        error: of the first row that failed.
    """

    forecast: F32
    ok: NDArray[np.bool_]
    failed: Counter[str] = field(default_factory=Counter)
    fits: int | None = None
    works: bool | None = None
    error: str = ""


def forecast(
    engine: ModelEngine, context: F32, horizon: int, levels: Sequence[float], sizes: Sequence[int] = ()
) -> Outcome:
    """Forecast every row of `context` that can be forecast.

    A batch that fails is halved until the row that spoils it is alone; one that is too large for
    memory is halved and goes on. Batches are filled up to the next of `sizes` where there are any.
    """
    b = len(context)
    outcome = Outcome(np.empty((b, horizon, len(levels)), np.float32), np.zeros(b, bool))
    _Attempt(engine, context, horizon, levels, sizes, outcome).run(0, b)
    return outcome


class _Attempt:
    def __init__(
        self,
        engine: ModelEngine,
        context: F32,
        horizon: int,
        levels: Sequence[float],
        sizes: Sequence[int],
        outcome: Outcome,
    ) -> None:
        self._engine = engine
        self._context = context
        self._horizon = horizon
        self._levels = levels
        self._sizes = sizes
        self._outcome = outcome

    def run(self, start: int, stop: int) -> None:
        todo = [(start, stop)]  # a stack: rows are tried in their order
        while todo:
            start, stop = todo.pop()
            rows = stop - start
            if (fits := self._outcome.fits) is not None and rows > fits:
                todo += [(start + fits, stop), (start, start + fits)]
                continue
            try:
                self._predict(start, stop)
            except ForecastError as exc:
                if rows > 1:
                    if exc.reason == "memory":
                        self._outcome.fits = rows // 2
                        # Filled up to what did not fit, half of the rows would not fit either.
                        tried = self._filled(rows)
                        self._sizes = [size for size in self._sizes if size < tried]
                    middle = start + rows // 2
                    todo += [(middle, stop), (start, middle)]
                elif self._engine_works():
                    self._fail(exc, rows)
                else:
                    # Not this row's fault. Halving on would call a broken engine twice a row.
                    self._fail(exc, rows + sum(b - a for a, b in todo))
                    return

    def _predict(self, start: int, stop: int) -> None:
        rows = stop - start
        context = self._context[start:stop]
        size = self._filled(rows)
        if size > rows:
            filler = np.zeros((size - rows, context.shape[1]), np.float32)
            context = np.concatenate([context, filler])
        out = self._call(context)[:rows]
        self._outcome.works = True
        ok = np.isfinite(out).all(axis=(1, 2))
        self._outcome.forecast[start:stop] = out
        self._outcome.ok[start:stop] = ok
        if not ok.all():
            self._fail(ForecastError("a forecast is not finite", "nan"), int((~ok).sum()))

    def _filled(self, rows: int) -> int:
        """The rows of the batch that so many are sent in."""
        return next((size for size in self._sizes if size >= rows), rows)

    def _call(self, context: F32) -> F32:
        try:
            out = self._engine.predict(context, self._horizon, self._levels)
        except ForecastError:
            raise
        except MemoryError as exc:
            raise ForecastError(f"{self._engine.name}: out of memory: {exc}", "memory") from exc
        except Exception as exc:
            # The engine may be anybody's, and the row that upset it may be delivered for ever.
            raise ForecastError(f"{self._engine.name}: {type(exc).__name__}: {exc}", "exception") from exc
        shape = (len(context), self._horizon, len(self._levels))
        if out.shape != shape:
            raise ForecastError(f"{self._engine.name}: shape {out.shape}, expected {shape}", "shape")
        return out

    def _engine_works(self) -> bool:
        """Whether a plain context has a forecast, asked once a batch."""
        if self._outcome.works is None:
            plain = (np.arange(self._context.shape[1], dtype=np.float32) % 2)[None]
            try:
                self._call(plain)
                self._outcome.works = True
            except ForecastError:
                self._outcome.works = False
        return self._outcome.works

    def _fail(self, error: ForecastError, rows: int) -> None:
        if not self._outcome.failed[error.reason]:
            log.warning("%d of %d rows have no forecast: %s", rows, len(self._context), error)
        self._outcome.error = self._outcome.error or str(error)
        self._outcome.failed[error.reason] += rows
