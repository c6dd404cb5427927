"""What an undisturbed run says of a fleet: the product's own windows and scoring, fed in one process.

Which forecast was in force when a step closed depends on timing, with faults or without. The oracle
makes every forecast that a series is due, tells by the `yhat` that was written which of them was in
force, and judges with that one. So each score can be compared, whatever was late, and what a forecast of
another origin does to later scores is in the comparison too.
"""

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chaos.fleet import Fleet
from openanomaly.adapters.statistical import StatisticalAdapter
from openanomaly.core.frames import ForecastFrame, SampleFrame
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.scoring.blocks import PAGE
from openanomaly.core.scoring.levels import LEVELS
from openanomaly.core.series_column import SeriesColumn
from openanomaly.core.windows import output
from openanomaly.core.windows.admission import Budget, Refused, admit
from openanomaly.core.windows.bands import Bands
from openanomaly.core.windows.block import Block
from openanomaly.core.windows.plan import BlockPlan, plan
from openanomaly.core.windows.rows import NEVER

_SAME_FORECAST = 1e-9
SCORE_TOLERANCE = 1e-4


@dataclass
class Findings:
    """How the scores of a run compare, counted in steps of series.

    Attributes:
        compared: scores that were there and judged.
        wrong: those that differ from the undisturbed run's with the same forecast.
        wrong_values: steps whose value is not the one that was sent.
        unknown_origin: those whose `yhat` is of no forecast that the series was due.
        unforecast: those without a forecast.
        ages: how many scores used a forecast made so many steps before.
        examples: (step, series, what, expected, found) of some that are wrong.
    """

    compared: int = 0
    wrong: int = 0
    wrong_values: int = 0
    unknown_origin: int = 0
    unforecast: int = 0
    missing: int = 0
    ages: Counter[int] = field(default_factory=Counter)
    examples: list[tuple[int, int, str, float, float]] = field(default_factory=list)

    def older_than(self, steps: int) -> int:
        """Scores that used a forecast made more than `steps` before."""
        return sum(n for age, n in self.ages.items() if age > steps)


class _Origins(Bands):
    """The last forecasts of each row, of which the one with the observed median is in force."""

    def __init__(self, horizon: int, every: int) -> None:
        super().__init__(horizon)
        self.every = every
        self.kept = [Bands(horizon) for _ in range(-(-horizon // every) + 1)]
        self.observed: NDArray[np.float64] = np.empty(0)
        self.origin: NDArray[np.int64] = np.empty(0, np.int64)
        """(N,) of the forecasts that were chosen last; NEVER where none was."""
        self.unknown: NDArray[np.bool_] = np.empty(0, bool)

    def grow(self, rows: int) -> None:
        super().grow(rows)
        for bands in self.kept:
            bands.grow(rows)

    def reset(self, rows: Any) -> None:
        super().reset(rows)
        for bands in self.kept:
            bands.reset(rows)

    def keep(self, frame: ForecastFrame, offset: int) -> None:
        """Take a frame whose rows were due at one step: it replaces one that no step can reach any more."""
        turn = int(frame.origin[0]) // self.every
        assert (frame.origin // self.every == turn).all()
        self.kept[turn % len(self.kept)].apply(frame, np.ones(len(frame.row), bool), offset)

    def at(self, rows: Any, bucket: NDArray[np.int64], base: NDArray[np.float64]) -> NDArray[np.float64]:
        chosen = np.full((len(bucket), len(LEVELS)), np.nan)
        before = self.origin if self.origin.size else np.full(len(bucket), NEVER)
        self.origin = np.full(len(bucket), NEVER)
        wanted = self.observed[rows]
        for bands in self.kept:
            found, origin = bands.at(rows, bucket, base), bands.columns["origin"][rows]
            fits = np.abs(found[:, 2] - wanted) <= _SAME_FORECAST * np.maximum(1, np.abs(wanted))
            # Where two fit by chance it is the one that was in force at the step before, else the newer.
            stays = (before > NEVER) & (self.origin == before)
            fits &= (origin > NEVER) & ((origin == before) | (~stays & (origin > self.origin)))
            chosen[fits] = found[fits]
            self.origin[fits] = origin[fits]
        self.unknown = ~np.isnan(wanted) & (self.origin == NEVER)
        return chosen


class _Page:
    """Some of the series, in a block of their own.

    Rows of one page change scoring blocks at the same step and pages at different ones, so a score depends
    on the page of its row. Partitions of less than a page of series have them all on the first one.
    """

    def __init__(self, fleet: Fleet, rows: slice, planned: BlockPlan) -> None:
        self.rows = rows
        self.origins = _Origins(planned.forecasters[0].horizon, planned.forecasters[0].every)
        self._fleet = fleet
        self._block = Block(planned)
        self._block.bands[planned.forecasters[0].uid] = self.origins
        self._at = np.arange(rows.stop - rows.start)
        series = SeriesColumn.of(fleet.blocks[rows])
        frame = SampleFrame(series, self._at.astype(np.uint32), *self._samples(0), 0)
        admit(self._block, [], frame, self._at, Budget(len(self._at)), Refused())
        self._engine = StatisticalAdapter()
        self._frames = 0

    def _samples(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        return np.full(len(self._at), self._fleet.sampled_ms(step)), self._fleet.values(step)[self.rows]

    def take(self, step: int, yhat: NDArray[np.float64]) -> NDArray[np.float64]:
        """Take the samples of a step, and so close the one before, whose medians were `yhat`; its scores."""
        self.origins.observed = yhat
        closings = self._block.put(self._at, *self._samples(step), received_ms=0)
        if not closings:
            return np.full(len(self._at), np.nan)
        for due in output.due_frames(self._block, closings, 0, 0):
            context = due.context.values
            quantile = self._engine.predict(context, due.horizon, LEVELS)
            self._frames += 1
            self.origins.keep(ForecastFrame.pack(due, np.array(LEVELS, np.float32), quantile), self._frames)
        score: NDArray[np.float64] = closings[0].scored[0].judged.score.astype(np.float64)
        return score


class Oracle:
    """Judges step by step what a target was sent."""

    def __init__(self, fleet: Fleet, pipeline: Pipeline) -> None:
        self.found = Findings()
        self._fleet = fleet
        (planned,) = plan([pipeline])
        edges = [*range(0, fleet.series, PAGE), fleet.series]
        self._pages = [_Page(fleet, slice(a, b), planned) for a, b in pairwise(edges)]
        self._first = fleet.start_ms // planned.spec.step_ms
        self._taken = 0

    @property
    def next_step(self) -> int:
        """The step that `judge` expects."""
        return max(0, self._taken - 1)

    def judge(
        self, yhat: NDArray[np.float64], score: NDArray[np.float64], value: NDArray[np.float64]
    ) -> None:
        """Close the next step with the forecasts that `yhat` shows, and compare. NaN is what did not come."""
        if self._taken == 0:
            self._take(np.full_like(yhat, np.nan))
        step = self.next_step
        expected = self._take(yhat)
        if np.isfinite(expected).any():
            self._compare(step, yhat, expected, score, value)

    def _take(self, yhat: NDArray[np.float64]) -> NDArray[np.float64]:
        found = [page.take(self._taken, yhat[page.rows]) for page in self._pages]
        self._taken += 1
        return np.concatenate(found)

    def _compare(
        self,
        step: int,
        yhat: NDArray[np.float64],
        expected: NDArray[np.float64],
        score: NDArray[np.float64],
        value: NDArray[np.float64],
    ) -> None:
        found = self.found
        origin = np.concatenate([page.origins.origin for page in self._pages])
        unknown = np.concatenate([page.origins.unknown for page in self._pages])
        sent = self._fleet.values(step)
        missing = np.isnan(score) | np.isnan(value)
        wrong = ~missing & ~(np.abs(score - expected) <= SCORE_TOLERANCE)
        spoilt = ~missing & ~(np.abs(value - sent) <= 1e-9 * np.abs(sent))
        unknown &= ~missing
        found.missing += int(missing.sum())
        found.compared += int((~missing).sum())
        found.wrong += int(wrong.sum())
        found.wrong_values += int(spoilt.sum())
        found.unknown_origin += int(unknown.sum())
        found.unforecast += int((np.isnan(yhat) & ~missing).sum())
        ages, counts = np.unique((step + self._first - origin)[origin > NEVER], return_counts=True)
        found.ages.update(dict(zip(ages.tolist(), counts.tolist(), strict=True)))
        for name, mask, a, b in (
            ("score", wrong, expected, score),
            ("value", spoilt, sent, value),
            ("yhat", unknown, expected, yhat),
            ("missing", missing, expected, score),
        ):
            for i in np.flatnonzero(mask)[:5].tolist():
                if len(found.examples) < 100:
                    found.examples.append((step, i, name, float(a[i]), float(b[i])))
