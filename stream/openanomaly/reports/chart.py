"""One series as SVG: values and the range of normal above, scores below, on one axis of time."""

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from html import escape

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.recording import Span
from openanomaly.core.scoring.reason import Reason
from openanomaly.core.services.backtest_summary import Curve, Episode

WIDTH, EDGE, TOP, PLOT, GAP, STRIP = 1040, 62, 8, 150, 12, 40
_FLOOR = TOP + PLOT + GAP + STRIP
HEIGHT = _FLOOR + 20
_BEYOND = 1.5
"""How many times the span of the values the range of normal may reach beyond them."""
_CAP = 10.0
_SHOWN_EPISODES = 200


def chart(
    curve: Curve,
    point_ms: int,
    episodes: Sequence[Episode],
    known: Sequence[Span],
    alert_score: float,
    span_ms: Span,
) -> str:
    """The drawing.

    Args:
        point_ms: time between two points; where they are further apart nothing is drawn.
        known: events that somebody labelled.
        span_ms: what the axis spans, in ms.
    """
    return "".join(_Drawing(curve, point_ms, span_ms).parts(episodes, known, alert_score))


class _Drawing:
    def __init__(self, curve: Curve, point_ms: int, span_ms: Span) -> None:
        self._curve = curve
        self._point_ms = point_ms
        self._first, self._last = span_ms[0] - point_ms / 2, span_ms[1] + point_ms / 2
        self._low, self._high = _range(curve)
        self._x = EDGE + (curve.time_ms - self._first) / (self._last - self._first) * (WIDTH - EDGE)
        self._half = max(0.75, point_ms / (self._last - self._first) * (WIDTH - EDGE) / 2)

    def parts(self, episodes: Sequence[Episode], known: Sequence[Span], alert_score: float) -> Iterator[str]:
        c = self._curve
        yield f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="values and scores">'
        for first, last in known:
            yield from self._mark("known", first, last, "labelled: anomalous")
        for e in sorted(episodes, key=lambda e: -e.peak)[:_SHOWN_EPISODES]:
            yield from self._mark("episode", e.start_ms, e.end_ms, f"{e.peak:.2f}: {Reason(e.reason).text}")
        yield f'<path class="axis" d="M{EDGE} {TOP + PLOT + 0.5}H{WIDTH}"/>'
        for run in self._runs(np.isfinite(c.lower) & np.isfinite(c.upper)):
            yield f'<path class="band" d="{self._area(run, c.lower, c.upper)}"/>'
        for run in self._runs(np.isfinite(c.expected)):
            yield f'<path class="median" d="M{self._line(run, c.expected)}"/>'
        for run in self._runs(np.isfinite(c.low)):
            if (c.low[run] != c.high[run]).any():
                yield f'<path class="range" d="{self._area(run, c.low, c.high)}"/>'
            yield f'<path class="value" d="M{self._line(run, (c.low + c.high) / 2)}"/>'
        yield from self._scores(alert_score)
        yield from self._texts()
        yield "</svg>"

    def _mark(self, kind: str, first: int, last: int, text: str) -> Iterator[str]:
        if last < self._first or first > self._last:
            return
        left, right = (
            EDGE
            + (min(max(t, self._first), self._last) - self._first)
            / (self._last - self._first)
            * (WIDTH - EDGE)
            for t in (first - self._point_ms / 2, last + self._point_ms / 2)
        )
        width = max(right - left, 1.5)
        yield f'<rect class="{kind}" x="{left:.1f}" y="0" width="{width:.1f}" height="{_FLOOR}">'
        yield f"<title>{escape(text)}</title></rect>"

    def _runs(self, there: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
        """Points in runs without a gap."""
        at = np.flatnonzero(there)
        if not at.size:
            return []
        gap = (np.diff(at) > 1) | (np.diff(self._curve.time_ms[at]) > 1.5 * self._point_ms)
        return np.split(at, np.flatnonzero(gap) + 1)

    def _y(self, value: NDArray[np.floating]) -> NDArray[np.float64]:
        share = (value.astype(np.float64) - self._low) / (self._high - self._low)
        return TOP + PLOT - np.clip(share, 0, 1) * PLOT

    def _line(self, run: NDArray[np.int64], value: NDArray[np.floating]) -> str:
        points = [f"{x:.1f} {y:.1f}" for x, y in zip(self._x[run], self._y(value[run]), strict=True)]
        return "L".join(points) + ("h0.1" if len(points) == 1 else "")

    def _area(self, run: NDArray[np.int64], low: NDArray[np.floating], high: NDArray[np.floating]) -> str:
        if run.size == 1:  # as wide as a point is
            (x,), (top,), (bottom,) = self._x[run], self._y(high[run]), self._y(low[run])
            return f"M{x - self._half:.1f} {top:.1f}h{2 * self._half:.1f}V{bottom:.1f}h{-2 * self._half:.1f}Z"
        return f"M{self._line(run, high)}L{self._line(run[::-1], low)}Z"

    def _scores(self, alert_score: float) -> Iterator[str]:
        score = self._curve.score
        for kind, at in (
            ("bar", np.flatnonzero(score <= alert_score)),
            ("bar high", np.flatnonzero(score > alert_score)),
        ):
            bars = [f"M{self._x[i]:.1f} {_FLOOR}v-{_tall(float(score[i])):.1f}" for i in at.tolist()]
            if bars:
                width = min(max(1.0, 2 * self._half * 0.8), 9)
                yield f'<path class="{kind}" stroke-width="{width:.2f}" d="{"".join(bars)}"/>'
        level = _FLOOR - _tall(alert_score)
        yield f'<path class="alert" d="M{EDGE} {level:.1f}H{WIDTH}"/>'

    def _texts(self) -> Iterator[str]:
        for text, x, y, anchor in (
            (short(self._high), EDGE - 6, TOP + 10, "end"),
            (short(self._low), EDGE - 6, TOP + PLOT, "end"),
            ("score", EDGE - 6, _FLOOR, "end"),
            (_clock(self._first + self._point_ms / 2), EDGE, HEIGHT - 4, "start"),
            (_clock((self._first + self._last) / 2), (EDGE + WIDTH) / 2, HEIGHT - 4, "middle"),
            (_clock(self._last - self._point_ms / 2), WIDTH - 1, HEIGHT - 4, "end"),
        ):
            yield f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}">{text}</text>'


def _tall(score: float) -> float:
    """Square root: 1 of 10 is a third of the height."""
    return max(1.0, math.sqrt(min(max(score, 0.0), _CAP) / _CAP) * STRIP)


def _range(curve: Curve) -> tuple[float, float]:
    """What the vertical axis spans: all values, and the range of normal as far as it does not dwarf them."""
    low, high = float(np.nanmin(curve.low)), float(np.nanmax(curve.high))
    most = _BEYOND * (high - low) if high > low else math.inf
    band = np.concatenate([curve.lower, curve.upper])
    if (band := band[np.isfinite(band)]).size:
        low, high = (
            max(min(low, float(band.min())), low - most),
            min(max(high, float(band.max())), high + most),
        )
    room = (high - low) * 0.06 or abs(low) * 0.05 or 1.0
    return low - room, high + room


def short(value: float) -> str:
    """A number in a few letters."""
    for limit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            scale = 1e3 if letter == "k" else limit
            return f"{value / scale:.4g}{letter}" if abs(value) < 1e15 else f"{value:.3g}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _clock(timestamp_ms: float) -> str:
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
