"""What a backtest found, gathered chunk by chunk: figures, episodes, and curves short enough to be drawn."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.frames import ScoreFlag
from openanomaly.core.recording import Span
from openanomaly.core.scoring import events
from openanomaly.core.scoring.events import Outcome
from openanomaly.core.services.backtest import ScoredSteps

BINS = 600
"""Points of the curve of a whole recording."""
AROUND = 90
"""Steps before and behind the highest score that are shown one by one."""
_EPISODES = 500

F32 = NDArray[np.float32]


@dataclass(slots=True)
class Episode:
    """A run of anomalous steps, as the status page would have shown it."""

    start_ms: int
    end_ms: int
    peak: float
    reason: int


@dataclass(frozen=True, slots=True)
class Curve:
    """N points of a series; what is not known is NaN.

    Attributes:
        time_ms: (N,) of each point; ascending.
        low, high: (N,) of its values; the same where a point is a step.
        expected, lower, upper: (N,).
        score: (N,) the highest.
    """

    time_ms: NDArray[np.int64]
    low: F32
    high: F32
    expected: F32
    lower: F32
    upper: F32
    score: F32


@dataclass(slots=True)
class SeriesSummary:
    """What was said of one series."""

    steps: int = 0
    scored: int = 0
    unforecast: int = 0
    anomalous: int = 0
    max_score: float = 0.0
    episode_count: int = 0
    episodes: list[Episode] = field(default_factory=list)
    closeup: Curve | None = None
    outcome: Outcome | None = None


class Summary:
    """Of all series of a backtest."""

    def __init__(
        self,
        series: int,
        step_ms: int,
        span_ms: Span,
        *,
        curves: bool = False,
        known: Sequence[Sequence[Span]] | None = None,
        alert_score: float = 1.0,
        by_end: bool = False,
    ) -> None:
        """
        Args:
            span_ms: first and last sample of the recording.
            curves: keep what a report draws, 14 KB a series.
            known: events of each series; their scores are kept, 12 bytes a step.
            by_end: times are the ends of steps, those of events too; else those of samples.
        """
        self.series = [SeriesSummary() for _ in range(series)]
        self.step_ms = step_ms
        self.span_ms = span_ms
        self.alert_score = alert_score
        self.known = known
        self._by_end = by_end
        self._width_ms = max(step_ms, -(-(span_ms[1] - span_ms[0] + 1) // BINS))
        shape = (series, BINS) if curves else (0, BINS)
        self._curves = {
            name: np.full(shape, np.nan, np.float32) for name in Curve.__slots__ if name != "time_ms"
        }
        self._kept: list[list[tuple[NDArray[np.int64], F32]]] = [[] for _ in range(series if known else 0)]

    def add(self, steps: ScoredSteps) -> None:
        """Take what is said of a chunk of time."""
        stamp = steps.end_ms if self._by_end else steps.sample_ms
        first = np.flatnonzero(np.diff(steps.series, prepend=-1))
        for a, b in zip(first.tolist(), [*first[1:].tolist(), len(steps.series)], strict=True):
            self._add(int(steps.series[a]), steps, slice(a, b), stamp[a:b])
        if self._curves["score"].size:
            self._draw(steps, stamp)

    def _add(self, i: int, steps: ScoredSteps, at: slice, stamp: NDArray[np.int64]) -> None:
        summary, judged = self.series[i], steps.judged
        score, flags = judged.score[at], judged.flags[at]
        is_scored = np.isfinite(score)
        summary.steps += len(score)
        summary.scored += int(is_scored.sum())
        summary.unforecast += int((is_scored & (flags & ScoreFlag.NO_FORECAST != 0)).sum())
        summary.anomalous += int((score > self.alert_score).sum())
        self._follow(summary, score, flags, judged.reason[at], stamp)
        if self._kept:
            self._kept[i].append((steps.end_ms[at] - self.step_ms, score))
        if is_scored.any():
            # The last of several that are equal: by then most is known of the series.
            peak = len(score) - 1 - int(np.nanargmax(score[::-1]))
            if score[peak] >= summary.max_score:
                summary.max_score = float(score[peak])
                if self._curves["score"].size:
                    near = slice(at.start + max(0, peak - AROUND), min(at.stop, at.start + peak + AROUND))
                    summary.closeup = _closeup(
                        steps, near, stamp[near.start - at.start : near.stop - at.start]
                    )

    def _follow(
        self,
        summary: SeriesSummary,
        score: F32,
        flags: NDArray[np.uint8],
        reason: NDArray[np.uint8],
        stamp: NDArray[np.int64],
    ) -> None:
        """Episodes: from the step that starts one to the last alarm in it."""
        summary.episode_count += int((flags & ScoreFlag.START != 0).sum())
        for k in np.flatnonzero((score > self.alert_score) | (flags & ScoreFlag.START != 0)).tolist():
            if flags[k] & ScoreFlag.START:
                if len(summary.episodes) >= _EPISODES:
                    summary.episodes.remove(min(summary.episodes[:-1], key=lambda e: e.peak))
                summary.episodes.append(Episode(int(stamp[k]), int(stamp[k]), 0.0, 0))
            if summary.episodes:
                episode = summary.episodes[-1]
                episode.end_ms = int(stamp[k])
                if score[k] > episode.peak:
                    episode.peak, episode.reason = float(score[k]), int(reason[k])

    def _draw(self, steps: ScoredSteps, stamp: NDArray[np.int64]) -> None:
        """Into the points of the whole recording: runs of steps that fall into one."""
        judged = steps.judged
        point = np.clip((stamp - self.span_ms[0]) // self._width_ms, 0, BINS - 1)
        key = steps.series * BINS + point
        first = np.flatnonzero(np.diff(key, prepend=-1))
        at = key[first]
        for name, source, least in (
            ("low", steps.value, True),
            ("high", steps.value, False),
            ("expected", steps.expected, False),
            ("lower", judged.lower, True),
            ("upper", judged.upper, False),
            ("score", judged.score, False),
        ):
            ufunc = np.fmin if least else np.fmax
            flat = self._curves[name].reshape(-1)
            flat[at] = ufunc(flat[at], _singles(ufunc.reduceat(source, first)))

    def curve(self, i: int) -> Curve:
        """The whole recording of series `i`, in a few hundred points; those without a step are left out."""
        there = np.flatnonzero(np.isfinite(self._curves["low"][i]))
        time_ms = self.span_ms[0] + there * self._width_ms + self._width_ms // 2
        return Curve(
            time_ms, *(self._curves[name][i, there] for name in Curve.__slots__ if name != "time_ms")
        )

    @property
    def point_ms(self) -> int:
        """Time between two points of a curve."""
        return self._width_ms

    def finish(self) -> Outcome | None:
        """Judge every series by its events, if they are known; the outcome of all together."""
        if self.known is None:
            return None
        shift = 1 if self._by_end else 0  # the end of a step is no moment of it
        for summary, spans, kept in zip(self.series, self.known, self._kept, strict=True):
            start_ms = np.concatenate([s for s, _ in kept] or [np.zeros(0, np.int64)])
            score = np.concatenate([s for _, s in kept] or [np.zeros(0, np.float32)])
            moved = [(a - shift, b - shift) for a, b in spans]
            summary.outcome = events.judge(start_ms, score, self.step_ms, moved, self.alert_score)
        return events.total(s.outcome for s in self.series if s.outcome is not None)

    def worst(self, count: int) -> list[int]:
        """Series by their highest score."""
        order = sorted(
            range(len(self.series)), key=lambda i: (-self.series[i].max_score, -self.series[i].anomalous)
        )
        return order[:count]


def _closeup(steps: ScoredSteps, at: slice, stamp: NDArray[np.int64]) -> Curve:
    judged = steps.judged
    value, expected, lower, upper = (
        _singles(x[at]) for x in (steps.value, steps.expected, judged.lower, judged.upper)
    )
    return Curve(stamp.copy(), value, value, expected, lower, upper, judged.score[at].copy())


def _singles(values: NDArray[np.floating]) -> F32:
    """To be drawn: what is beyond float32 is at its end."""
    singles: F32 = np.clip(values, -3e38, 3e38).astype(np.float32)
    return singles
