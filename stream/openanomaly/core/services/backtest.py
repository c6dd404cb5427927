"""The production path over a recording: all of it known before, so done for many steps at a time.

Contexts depend on values alone, never on scores. So a chunk of time is closed at once, all its forecasts
are made in large batches, and then every series is judged from its first step to its last. What is said
of a step is what the stream would have said, to the bit (tests/unit/core/services/test_backtest.py).
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.frames import DueFrame, SampleFrame
from openanomaly.core.pipelines.mute import muted
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.ports.model_engine import ModelEngine
from openanomaly.core.recording import RecordedSeries
from openanomaly.core.scoring.scorer import Judged
from openanomaly.core.series import Labels, encode_labels
from openanomaly.core.series_column import SeriesColumn
from openanomaly.core.services.answer import Answerer
from openanomaly.core.windows import history
from openanomaly.core.windows.admission import Budget, Refused, admit
from openanomaly.core.windows.bands import Bands
from openanomaly.core.windows.block import Block
from openanomaly.core.windows.buckets import is_time
from openanomaly.core.windows.history import Steps
from openanomaly.core.windows.plan import plan
from openanomaly.core.windows.ring import MARGIN, Ring
from openanomaly.core.windows.rows import Rows
from openanomaly.errors import ConfigError

CELLS = 1 << 18
"""Steps of all series that are worked on at a time: some 300 bytes each."""
_LEAST_STEPS = 64
_DUE_ROWS = 8192
_NOBODY = -1


@dataclass(frozen=True, slots=True)
class ScoredSteps:
    """What is said of N steps of one chunk of time; series ascend, and times within a series.

    Attributes:
        series: (N,) index into the recording.
        sample_ms: (N,) timestamp of the newest sample of the step.
        end_ms: (N,) end of the step: the timestamp that the stream writes its score at.
        value, expected: (N,) float64; `expected` is the median of the forecast, NaN where there is none.
        judged: score, reason, flags, lower and upper edge.
        done: samples taken so far, of all chunks.
    """

    series: Rows
    sample_ms: NDArray[np.int64]
    end_ms: NDArray[np.int64]
    value: NDArray[np.float64]
    expected: NDArray[np.float64]
    judged: Judged
    done: int


class Backtest:
    """One pipeline over one recording.

    Attributes:
        counts: what became of samples and steps, by name.
        forecasts: what became of contexts.
        samples: of all series.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        engines: Mapping[str, ModelEngine],
        recording: Sequence[RecordedSeries],
        *,
        chunk_steps: int | None = None,
    ) -> None:
        """
        Args:
            engines: by what pipelines call their models.
            chunk_steps: steps of time that are worked on at once; from `CELLS` by default.

        Raises:
            ConfigError: two series have the same labels, or a timestamp is out of range.
        """
        _check(recording)
        (self._plan,) = plan([pipeline.without_groups])
        self._watched = self._plan.pipelines[0]
        self._recording = recording
        width = chunk_steps or max(_LEAST_STEPS, CELLS // max(len(recording), 1))
        self._block = Block(self._plan)
        self._block.ring = Ring(self._plan.spec.context, max(width, MARGIN))
        self._width = width
        self.forecasts = Answerer(engines)
        self.samples = sum(len(s.timestamp_ms) for s in recording)
        self._place = np.zeros(len(recording), np.int64)  # of the next sample of each series
        self._rows = np.full(len(recording), _NOBODY)
        self._series = np.zeros(0, np.int64)  # of each row
        self._in_force = Bands(self._watched.forecaster.horizon)

    @property
    def counts(self) -> Counter[str]:
        return self._block.counts

    def run(self) -> Iterator[ScoredSteps]:
        """Go through the recording, chunk of time by chunk of time."""
        step_ms = self._plan.spec.step_ms
        while (next_ms := self._next_ms()) is not None:
            start = next_ms // step_ms
            stop = start + self._width
            steps = self._close(start, stop)
            if not steps.rows.size:
                continue
            band = self._forecast(steps, start)
            yield self._judge(steps, band)

    # -- samples to steps ----------------------------------------------------------------------

    def _next_ms(self) -> int | None:
        rest = [
            int(s.timestamp_ms[at])
            for s, at in zip(self._recording, self._place.tolist(), strict=True)
            if at < len(s.timestamp_ms)
        ]
        return min(rest, default=None)

    def _close(self, start: int, stop: int) -> Steps:
        """Take all samples of buckets [start, stop)."""
        edge_ms = stop * self._plan.spec.step_ms
        parts = [
            slice(at, int(np.searchsorted(s.timestamp_ms, edge_ms)))
            for s, at in zip(self._recording, self._place.tolist(), strict=True)
        ]
        self._place[:] = [part.stop for part in parts]
        self._admit([i for i, part in enumerate(parts) if part.start == 0 and part.stop > 0])
        order = [i for i in self._series.tolist() if parts[i].stop > parts[i].start]
        taken = [self._recording[i] for i in order]
        sizes = [parts[i].stop - parts[i].start for i in order]
        return history.close(
            self._block,
            np.repeat(self._rows[order], sizes),
            np.concatenate(
                [s.timestamp_ms[parts[i]] for i, s in zip(order, taken, strict=True)] or [_NO_TIMES]
            ),
            np.concatenate([s.value[parts[i]] for i, s in zip(order, taken, strict=True)] or [_NO_VALUES]),
            start,
            stop,
        )

    def _admit(self, new: list[int]) -> None:
        """Give rows to series whose first sample has come, in the order of these."""
        if not new:
            return
        new.sort(key=lambda i: int(self._recording[i].timestamp_ms[0]))
        first = [self._recording[i] for i in new]
        frame = SampleFrame(
            SeriesColumn.of([encode_labels(s.labels) for s in first]),
            np.arange(len(new), dtype=np.uint32),
            np.array([s.timestamp_ms[0] for s in first]),
            np.array([s.value[0] for s in first], np.float64),
            0,
        )
        budget = Budget(len(self._recording))
        admit(self._block, (), frame, np.arange(len(new)), budget, Refused())
        rows = self._block.catalogue.find(frame.series.ids)
        wanted = np.flatnonzero((rows >= 0) & (rows < self._block.rows))
        self._rows[np.array(new)[wanted]] = rows[wanted]
        series = np.zeros(self._block.rows, np.int64)
        series[: self._series.size] = self._series
        series[rows[wanted]] = np.array(new)[wanted]
        self._series = series
        unselected = set(range(len(new))) - set(wanted.tolist())
        self._block.counts["unselected_series"] += len(unselected)

    # -- forecasts -----------------------------------------------------------------------------

    def _forecast(self, steps: Steps, start: int) -> NDArray[np.float64]:
        """(N, 5) quantiles for each step: of the newest forecast made at an earlier step of its row."""
        n, block = self._block.rows, self._block
        due = block.due(steps.rows, steps.bucket, steps.before)
        _, rows, origin = due[0] if due else (None, _NO_TIMES, _NO_TIMES)
        # A row of its own for every forecast; those that were in force at the start come first.
        bands = Bands(self._in_force.horizon)
        bands.grow(n + rows.size)
        self._in_force.grow(n)
        bands.columns.copy(np.arange(n), self._in_force.columns, np.arange(n))
        made = [
            self._answer(bands, rows[i : i + _DUE_ROWS], origin[i : i + _DUE_ROWS], n + i)
            for i in range(0, rows.size, _DUE_ROWS)
        ]
        of = np.concatenate([*made, _NO_TIMES])
        rows, origin = rows[of - n], origin[of - n]
        order = np.lexsort((origin, rows))
        of, rows, origin = of[order], rows[order], origin[order]
        key = rows * self._width + (origin - start)
        at = np.searchsorted(key, steps.rows * self._width + (steps.bucket - start)) - 1
        source = steps.rows.copy()
        if rows.size:
            here = (at >= 0) & (rows[at] == steps.rows)
            source[here] = of[at[here]]
            last = np.flatnonzero(np.diff(rows, append=-1))
            self._in_force.columns.copy(rows[last], bands.columns, of[last])
        return bands.at(source, steps.bucket, block.catalogue.base[steps.rows])

    def _answer(self, bands: Bands, rows: Rows, origin: NDArray[np.int64], first: int) -> Rows:
        """Ask for forecasts, which get the places from `first` on in `bands`; the places that got one."""
        block, forecaster = self._block, self._watched.forecaster
        context, known = block.ring.contexts(rows, origin, block.catalogue.born[rows])
        enough = np.flatnonzero(known >= forecaster.min_context)
        if not enough.size:
            return _NO_TIMES
        block.counts["due"] += enough.size
        frame = DueFrame(
            partition=0,
            block=block.uid,
            forecaster=forecaster.uid,
            model=forecaster.model,
            horizon=forecaster.horizon,
            step_ms=block.spec.step_ms,
            row=(first + enough).astype(np.uint32),
            generation=np.zeros(enough.size, np.uint32),
            origin=origin[enough],
            context=context.take(enough),
            closed_ms=0,
            useful_until_ms=0,
        )
        answers = self.forecasts.answer([frame])
        for answer in answers:
            bands.apply(answer, np.ones(answer.row.size, bool), 0)
        return np.concatenate([*(answer.row.astype(np.int64) for answer in answers), _NO_TIMES])

    # -- scores --------------------------------------------------------------------------------

    def _judge(self, steps: Steps, band: NDArray[np.float64]) -> ScoredSteps:
        end_ms = (steps.bucket + 1) * self._plan.spec.step_ms
        mute = muted(self._watched.pipeline.score.mute, end_ms)
        scoring = self._block.scorings[0]
        judged = scoring.scorer.run(scoring.state, steps.rows, steps.bucket, steps.value, band, mute)
        self._block.counts["scored"] += int(np.isfinite(judged.score).sum())
        series = self._series[steps.rows]
        # Rows are in the order in which series began.
        at = slice(None) if (np.diff(series) >= 0).all() else np.argsort(series, kind="stable")
        return ScoredSteps(
            series[at],
            steps.sample_ms[at],
            end_ms[at],
            steps.value[at],
            band[at, 2],
            judged.take(at),
            int(self._place.sum()),
        )


_NO_TIMES = np.zeros(0, np.int64)
_NO_VALUES = np.zeros(0)


def _check(recording: Sequence[RecordedSeries]) -> None:
    seen: set[Labels] = set()
    for series in recording:
        if series.labels in seen:
            raise ConfigError(f"there are two series {dict(series.labels)}")
        seen.add(series.labels)
        time = series.timestamp_ms
        if time.size and not is_time(time[[0, -1]]).all():
            raise ConfigError(
                f"series {dict(series.labels)} goes from {time[0]} to {time[-1]} ms since 1970: "
                "times can be from 1970 to 2109"
            )
