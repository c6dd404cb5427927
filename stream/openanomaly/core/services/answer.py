"""Due frames answered at once, in batches of the shapes that the inference role makes."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from openanomaly.core.frames import DueFrame, ForecastFrame
from openanomaly.core.ports.model_engine import ModelEngine
from openanomaly.core.scoring.levels import LEVELS
from openanomaly.core.services.attempt import Observer, forecast
from openanomaly.core.services.due_queue import Part, Request, stack
from openanomaly.core.services.shapes import batch_sizes, lengths

MAX_BATCH = 1024
"""Rows of one batch."""
_LEVEL = np.array(LEVELS, np.float32)
_LEVEL.flags.writeable = False


@dataclass(frozen=True, slots=True)
class Watch:
    """Who hears of batches, in the thread of who asks, and the monotonic clock that times them."""

    observer: Observer
    clock_s: Callable[[], float]


class Answerer:
    """Asks engines for the forecasts that due frames want. Counts what became of them.

    Attributes:
        forecast: rows that got a forecast.
        failed: rows that got none, by reason; `unknown_model` among them.
        error: of the last batch in which a row failed; empty where all is well.
    """

    def __init__(
        self,
        engines: Mapping[str, ModelEngine],
        max_batch: int = MAX_BATCH,
        watch: Watch | None = None,
    ) -> None:
        self._engines = engines
        self._watch = watch
        self._ladders = {name: lengths(engine.max_context) for name, engine in engines.items()}
        self._sizes = dict.fromkeys(engines, max_batch)
        self.forecast = 0
        self.failed: Counter[str] = Counter()
        self.error = ""

    def answer(self, frames: Sequence[DueFrame]) -> list[ForecastFrame]:
        """Forecasts of the rows that could be forecast, a frame for each due frame that has any."""
        self.error = ""
        requests = [Request.of(frame, len(LEVELS), lambda _: None) for frame in frames]
        for (model, horizon, length), parts in self._groups(requests).items():
            for batch in _batches(parts, partial(self._sizes.__getitem__, model)):
                self._run(model, horizon, length, batch)
        return [_packed(request) for request in requests if request.ok.any()]

    def _groups(self, requests: Sequence[Request]) -> dict[tuple[str, int, int], list[Part]]:
        """Rows by what a batch must have in common: model, horizon and length."""
        groups: dict[tuple[str, int, int], list[Part]] = {}
        for request in requests:
            frame = request.frame
            engine = self._engines.get(frame.model)
            if engine is None:
                self._drop(Counter(unknown_model=len(frame.row)))
                self.error = f"there is no model {frame.model}"
                continue
            # Steps of one pass cost the same whether they are asked for or not.
            horizon = -(-frame.horizon // engine.horizon_step) * engine.horizon_step
            ladder = self._ladders[frame.model]
            rung = np.searchsorted(ladder, np.minimum(request.known, ladder[-1]))
            for r in np.unique(rung).tolist():
                part = Part(request, np.flatnonzero(rung == r))
                groups.setdefault((frame.model, horizon, int(ladder[r])), []).append(part)
        return groups

    def _run(self, model: str, horizon: int, length: int, parts: Sequence[Part]) -> None:
        engine, watch = self._engines[model], self._watch
        sizes = batch_sizes(self._sizes[model]) if engine.fixed_shapes else ()
        begin_s = watch.clock_s() if watch else 0.0
        outcome = forecast(engine, stack(parts, length), horizon, LEVELS, sizes)
        if watch:
            rows = sum(map(len, parts))
            steps = length * next((size for size in sizes if size >= rows), rows)
            padding = steps - sum(part.known(length) for part in parts)
            watch.observer.batch(model, rows, watch.clock_s() - begin_s, steps, padding)
            watch.observer.forecast(int(outcome.ok.sum()))
        if outcome.fits is not None:
            self._sizes[model] = outcome.fits
        self.forecast += int(outcome.ok.sum())
        self._drop(outcome.failed)
        self.error = outcome.error or self.error
        at = 0
        for part in parts:
            source = slice(at, at + len(part))
            part.request.forecast[part.rows] = outcome.forecast[source, : part.request.frame.horizon]
            part.request.ok[part.rows] = outcome.ok[source]
            at += len(part)

    def _drop(self, failed: Counter[str]) -> None:
        self.failed += failed
        if self._watch:
            for reason, rows in failed.items():
                self._watch.observer.dropped(reason, rows)


def _batches(parts: Sequence[Part], size: Callable[[], int]) -> Iterator[list[Part]]:
    """The parts, in their order, in batches of at most `size()` rows."""
    batch: list[Part] = []
    room = size()
    for part in parts:
        rest = part
        while len(rest) > room:
            if room:
                first, rest = rest.split(room)
                batch.append(first)
            yield batch
            batch, room = [], size()
        batch.append(rest)
        room -= len(rest)
    if batch:
        yield batch


def _packed(request: Request) -> ForecastFrame:
    """As it would come from the broker: what is read-only there is so here."""
    rows = np.flatnonzero(request.ok)
    frame = ForecastFrame.pack(request.frame.take(rows), _LEVEL, request.forecast[rows])
    for column in (frame.quantile, frame.center, frame.scale, frame.origin):
        column.flags.writeable = False
    return frame
