"""One pipeline over one recording, and all that the page shows of it."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openanomaly.adapters.recordings import naming
from openanomaly.adapters.recordings.scores import ScoreFile
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.ports.model_engine import ModelEngine
from openanomaly.core.scoring.events import Outcome
from openanomaly.core.scoring.firing import LOOKBACK_MS, Firings, firings
from openanomaly.core.scoring.scorer import Judged
from openanomaly.core.services.backtest import Backtest, ScoredSteps
from openanomaly.core.services.backtest_summary import Summary
from openanomaly.errors import TrialError
from openanomaly.playground import texts
from openanomaly.playground.recorded import Recorded
from openanomaly.reports import page as report

_CELLS, _LEAST_STEPS = 1 << 14, 64
"""Steps of all series, and at least of time, from one word on how far it is to the next."""
_CSV_STEPS = 100_000
Tell = Callable[[int, int], None]
"""Is told of samples that are done, and of all of them."""


@dataclass(frozen=True, slots=True)
class Steps:
    """(N,) steps of one series, in the order of time; 54 bytes each.

    Attributes:
        sample_ms: of the newest sample of each.
        end_ms: when its score would have been written.
        reason: numbers of `Reason`.
        flags: `ScoreFlag`.
    """

    sample_ms: NDArray[np.int64]
    end_ms: NDArray[np.int64]
    value: NDArray[np.float64]
    expected: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    score: NDArray[np.float32]
    reason: NDArray[np.uint8]
    flags: NDArray[np.uint8]

    def between(self, first_ms: int, last_ms: int) -> "Steps":
        """Those that end in [first, last]."""
        at = slice(*np.searchsorted(self.end_ms, [first_ms, last_ms + 1]).tolist())
        return Steps(*(getattr(self, name)[at] for name in _NAMES))


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of it.

    Attributes:
        names: of the series, for people.
        steps: of each series.
        failed: contexts without a forecast, by reason.
    """

    data: Recorded
    pipeline: Pipeline
    names: list[str]
    summary: Summary
    outcome: Outcome | None
    steps: list[Steps]
    seconds: float
    forecasts: int
    failed: Mapping[str, int]
    unselected: int

    @property
    def days(self) -> float:
        """From the first score of any series to the last one."""
        ends = [s.end_ms[np.isfinite(s.score)] for s in self.steps]
        there = [end for end in ends if end.size]
        if not there:
            return 0.0
        last, first = max(int(end[-1]) for end in there), min(int(end[0]) for end in there)
        return (last - first + self.pipeline.step_ms) / 86_400_000

    def figures(self) -> dict[str, Any]:
        """What tells one trial from another."""
        each = self.summary.series
        scored_days = sum(s.scored for s in each) * self.pipeline.step_s / 86400
        episodes = sum(s.episode_count for s in each)
        out: dict[str, Any] = {
            "episodes": episodes,
            "a day and series": episodes / scored_days if scored_days else None,
            "series with episodes": sum(s.episode_count > 0 for s in each),
            "anomalous steps": sum(s.anomalous for s in each),
        }
        if self.outcome is not None:
            judged = report.judged(self.outcome)
            out |= {
                "events found": f"{judged['found']} of {judged['events']}",
                "found after steps": judged["median_found_after_steps"],
                "precision": judged["precision"],
                "false a day and series": judged["false_alarms_per_day"],
            }
        return out

    def alerts(self, level: float, wait_s: float) -> list[Firings]:
        """How often the rule of `texts.rules` would have fired, for each series."""
        late_ms = round(self.pipeline.lateness_s * 1000)
        shown_ms = texts.window_s(self.pipeline) * 1000 or LOOKBACK_MS
        wait_ms = round(wait_s * 1000)
        return [firings(s.end_ms, s.score, level, wait_ms, shown_ms, late_ms) for s in self.steps]

    def csv(self) -> bytes:
        """Every step, as `openanomaly backtest --out` writes it."""
        with TemporaryDirectory() as folder:
            file = Path(folder, "scores.csv")
            with ScoreFile(file, self.names, self.data.style, self.data.by_end) as out:
                for chunk in self._chunks():
                    out.add(chunk)
            return file.read_bytes()

    def _chunks(self) -> Iterator[ScoredSteps]:
        """All steps, so many at a time, in the order of time."""
        ends = np.sort(np.concatenate([s.end_ms for s in self.steps] or [np.zeros(0, np.int64)]))
        edges = np.unique(ends[_CSV_STEPS - 1 :: _CSV_STEPS])
        before = -1
        for edge in [*edges.tolist(), int(ends[-1]) if ends.size else -1]:
            if edge > before:
                yield self._chunk([s.between(before + 1, edge) for s in self.steps])
                before = edge

    def _chunk(self, steps: list[Steps]) -> ScoredSteps:
        every = _joined(steps)
        return ScoredSteps(
            np.repeat(np.arange(len(steps)), [len(s.end_ms) for s in steps]),
            every.sample_ms,
            every.end_ms,
            every.value,
            every.expected,
            Judged(
                every.score,
                every.score,
                every.reason,
                every.flags,
                every.lower,
                every.upper,
                np.zeros(len(every.score), bool),
            ),
            self.data.recording.samples,
        )

    def report(self) -> str:
        """The page that `openanomaly backtest --report` writes."""
        facts = report.Facts(
            self.data.title, self.pipeline, self.names, self.summary, self.outcome, self.seconds
        )
        return report.text(facts)


def run(
    data: Recorded, pipeline: Pipeline, engines: Mapping[str, ModelEngine], timeout_s: float, tell: Tell
) -> Trial:
    """Score every step of the data. What `tell` raises ends it, between two chunks.

    Raises:
        ConfigError: the data cannot be scored.
        TrialError: it takes too long.
    """
    recording = data.recording
    chunk_steps = max(_LEAST_STEPS, _CELLS // max(len(recording.series), 1))
    test = Backtest(pipeline.scored, engines, recording.series, chunk_steps=chunk_steps)
    names = [naming.show(series.labels) for series in recording.series]
    summary = Summary(
        len(names),
        pipeline.step_ms,
        _span(data),
        curves=True,
        known=recording.events,
        alert_score=pipeline.score.alert_score,
        by_end=data.by_end,
    )
    gathered = _Gathered(len(names))
    began_s = time.monotonic()
    tell(0, test.samples)
    for chunk in test.run():
        summary.add(chunk)
        gathered.add(chunk)
        tell(chunk.done, test.samples)
        if time.monotonic() - began_s > timeout_s and chunk.done < test.samples:
            raise TrialError(
                f"{chunk.done:,} of {test.samples:,} samples were done within "
                f"playground.timeout_s={timeout_s:g}: try fewer series, or a shorter time"
            )
    return Trial(
        data,
        pipeline,
        names,
        summary,
        summary.finish(),
        gathered.steps(),
        max(time.monotonic() - began_s, 1e-3),
        test.forecasts.forecast,
        dict(test.forecasts.failed),
        test.counts["unselected_series"],
    )


class _Gathered:
    """The steps of each series, chunk by chunk."""

    def __init__(self, series: int) -> None:
        self._parts: list[list[Steps]] = [[] for _ in range(series)]

    def add(self, chunk: ScoredSteps) -> None:
        judged = chunk.judged
        columns: tuple[NDArray[Any], ...] = (
            chunk.sample_ms,
            chunk.end_ms,
            chunk.value,
            chunk.expected,
            judged.lower,
            judged.upper,
            judged.score,
            judged.reason,
            judged.flags,
        )
        first = np.flatnonzero(np.diff(chunk.series, prepend=-1))
        for a, b in zip(first.tolist(), [*first[1:].tolist(), len(chunk.series)], strict=True):
            cut = (column[a:b].astype(kind) for column, kind in zip(columns, _KINDS, strict=True))
            self._parts[int(chunk.series[a])].append(Steps(*cut))

    def steps(self) -> list[Steps]:
        return [_joined(parts) for parts in self._parts]


_NAMES = tuple(field.name for field in fields(Steps))
_KINDS = (np.int64, np.int64, *[np.float64] * 4, np.float32, np.uint8, np.uint8)


def _joined(parts: Sequence[Steps]) -> Steps:
    columns = zip(_NAMES, _KINDS, strict=True)
    return Steps(
        *(np.concatenate([getattr(p, name) for p in parts] or [np.zeros(0, kind)]) for name, kind in columns)
    )


def _span(data: Recorded) -> tuple[int, int]:
    there = [s.timestamp_ms for s in data.recording.series if len(s.timestamp_ms)]
    return min((int(t[0]) for t in there), default=0), max((int(t[-1]) for t in there), default=0)
