"""What a board shows, as plain values that are valid JSON: what is unknown is None, never NaN."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.anomalies.board import Board, Watched
from openanomaly.core.anomalies.known import NOT_TRACKED, OTHERS
from openanomaly.core.anomalies.query import Query
from openanomaly.core.frames import ScoreFlag
from openanomaly.core.scoring.reason import Reason
from openanomaly.core.series import Labels
from openanomaly.core.windows.rows import Rows

_GROUPS_LISTED = 100
_DIGITS = 7
_CHART_DIGITS = 5
_GAP_LEADS = 2


def report(board: Board, query: Query) -> dict[str, Any]:
    """The answer to `query`: fields `summary`, `forecasts`, `pipelines`, `groups` and `anomalies`."""
    view = View(board)
    chosen = _chosen(board, query, view)
    return {
        "summary": {
            "series": view.series(board),
            "anomalous": view.anomalous,
            "away": view.went_away,
            "left_out": view.untracked,
            "matching": len(chosen),
            "listed": min(len(chosen), query.limit),
            "newest_ms": max((w.newest_ms for w in board.pipelines.values()), default=None),
            "seen_ms": board.clock_ms or None,
            "scores": dict(board.counts),
        },
        "forecasts": _sum([view.forecasts_of(w) for w in board.pipelines.values()]),
        "pipelines": [_pipeline(view, w) for w in board.pipelines.values()],
        **_groups(board, query, view),
        "anomalies": [_anomaly(board, view, track, query.steps) for track in chosen[: query.limit].tolist()],
    }


def gauges(board: Board) -> dict[str, int]:
    """How many series there are, for our own metrics."""
    view = View(board)
    return {
        "series": view.series(board),
        "series_anomalous": view.anomalous,
        "series_untracked": view.untracked,
        "series_without_forecast": _sum([view.forecasts_of(w) for w in board.pipelines.values()])["without"]
        or 0,
    }


class View:
    """The series that are there, and what their newest steps say."""

    def __init__(self, board: Board) -> None:
        known = board.known
        rows = known.rows
        self.away = rows[board.is_away(rows)]
        self.rows = rows = np.setdiff1d(rows, self.away, assume_unique=True)
        self.pipeline, self.group = known.pipeline[rows], known.group[rows]
        flags = known.flags[rows]
        self.is_open = flags & ScoreFlag.OPEN != 0
        self.is_unforecast = flags & ScoreFlag.NO_FORECAST != 0
        track = known.track[rows[self.is_open]]
        self.anomalous, self.untracked = len(track), int((track == NOT_TRACKED).sum())
        self.away_pipeline = known.pipeline[self.away]
        left_open = (known.flags[self.away] & ScoreFlag.OPEN != 0) & (known.track[self.away] != NOT_TRACKED)
        self.gone = frozenset(self.away[left_open].tolist())
        self.went_away = len(self.gone)
        """Series that sent nothing more while they were in an episode."""
        self.names = {w.number: w for w in board.pipelines.values()}
        self.censuses = {w.number: board.census(w) for w in board.pipelines.values()}

    def emits(self, watched: Watched) -> str | None:
        """Whether `all` steps of a pipeline come or those of `episodes`; None where no step has told."""
        census = self.censuses[watched.number]
        if census is not None:
            return "all" if census.emits_all else "episodes"
        # Of a release that tells no census.
        if not watched.normal_seen_ms and not watched.marker_seen_ms:
            return None
        if watched.marker_seen_ms > watched.normal_seen_ms:
            return "episodes"
        # Normal steps no longer come, and their series are no longer there: unlike where all are odd.
        is_long_ago = watched.seen_ms - watched.normal_seen_ms > watched.patience_ms
        are_gone = watched.gone_ms > watched.normal_seen_ms or (self.away_pipeline == watched.number).any()
        return "episodes" if is_long_ago and are_gone else "all"

    def series_of(self, watched: Watched) -> int | None:
        """Series of a pipeline that are judged, normal ones too; None where that is not known."""
        if self.emits(watched) == "all":
            return int((self.pipeline == watched.number).sum())
        census = self.censuses[watched.number]
        return None if census is None else census.judged

    def series(self, board: Board) -> int:
        """Series that are judged: of pipelines that do not tell, those whose scores came."""
        known = [(w, self.series_of(w)) for w in board.pipelines.values()]
        return sum(int((self.pipeline == w.number).sum()) if n is None else n for w, n in known)

    def forecasts_of(self, watched: Watched) -> tuple[int, int] | None:
        """Series that are judged, and those of them without a forecast; None where that is not known."""
        series = self.series_of(watched)
        if series is None:
            return None
        if self.emits(watched) == "all":
            mine = self.pipeline == watched.number
            return series, int(self.is_unforecast[mine].sum())
        census = self.censuses[watched.number]
        assert census is not None  # else the series would not be known
        return series, census.unforecast


def _sum(forecasts: list[tuple[int, int] | None]) -> dict[str, Any]:
    """What is known of some pipelines; None where nothing is."""
    known = [each for each in forecasts if each is not None]
    if forecasts and not known:
        return {"series": None, "without": None, "share_without": None}
    series, without = sum(n for n, _ in known), sum(n for _, n in known)
    return {
        "series": series,
        "without": without,
        "share_without": round(without / series, 4) if series else None,
    }


def _pipeline(view: View, watched: Watched) -> dict[str, Any]:
    mine = view.pipeline == watched.number
    emits = view.emits(watched)
    census = view.censuses[watched.number]
    return {
        "name": watched.name,
        "step_ms": watched.step_ms,
        "emits": emits,
        "series": view.series_of(watched),
        "judged": None if census is None else census.judged,
        "warming": None
        if census is None
        else {"series": census.series - census.judged, "steps_left": census.steps_left or None},
        "anomalous": int((mine & view.is_open).sum()),
        "forecasts": _sum([view.forecasts_of(watched)]),
        "newest_ms": watched.newest_ms,
        "seen_ms": watched.seen_ms,
    }


def _groups(board: Board, query: Query, view: View) -> dict[str, Any]:
    mine = np.ones(len(view.rows), bool)
    if query.pipeline is not None:
        watched = board.pipelines.get(query.pipeline)
        mine = view.pipeline == (watched.number if watched is not None else -1)
    size = len(board.groups.names)
    series, anomalous, unforecast = (
        np.bincount(view.group[mine & which], minlength=size)
        for which in (mine, view.is_open, view.is_unforecast)
    )
    partly = {w.number for w in board.pipelines.values() if view.emits(w) != "all"}
    in_part = np.isin(view.pipeline, list(partly)) & mine
    is_partial = np.bincount(view.group[in_part], minlength=size) > 0
    share = anomalous / np.maximum(series, 1)
    there = np.flatnonzero(series)
    there = there[np.lexsort((there, -series[there], -share[there], -anomalous[there]))]
    out = []
    for number in there[:_GROUPS_LISTED].tolist():
        label, name = board.groups.names[number]
        total = None if is_partial[number] else int(series[number])
        out.append(
            {
                "label": label or None,
                "name": name if (label, name) != OTHERS else None,
                "series": total,
                "anomalous": int(anomalous[number]),
                "share": None if total is None else round(float(share[number]), 4),
                "without_forecast": None if total is None else int(unforecast[number]),
            }
        )
    return {"groups": out, "groups_left_out": max(0, len(there) - _GROUPS_LISTED)}


def _chosen(board: Board, query: Query, view: View) -> Rows:
    """Tracks that a query wants: open ones, then those that went away, then ended ones; the latest first.

    Latest on the wall clock: of what is replayed, what has just been seen. What came in the same moment,
    as in an incident of many series, has the highest score first.
    """
    tracks, known = board.tracks, board.known
    held = tracks.held
    row = tracks.row[held]
    is_open = np.isin(row, view.rows[view.is_open], assume_unique=True)
    wanted = np.ones(len(held), bool)
    if query.state != "all":
        wanted &= is_open == (query.state == "open")
    if query.pipeline is not None:
        watched = board.pipelines.get(query.pipeline)
        wanted &= known.pipeline[row] == (watched.number if watched is not None else -1)
    if query.since_ms is not None:
        last_ms = np.where(tracks.ended_ms[held] != 0, tracks.ended_ms[held], known.newest_ms[row])
        wanted &= last_ms >= query.since_ms
    if query.group is not None:
        names = board.groups.names
        wanted &= np.array([names[g][1] == query.group for g in known.group[row].tolist()], bool)
    if query.match is not None:
        selector = query.match
        wanted &= np.array([selector.matches(tracks.labels(t)) for t in held.tolist()], bool)
    held, row, is_open = held[wanted], row[wanted], is_open[wanted]
    is_ended = tracks.ended_ms[held] != 0
    away_ms = np.where(is_ended, tracks.ended_seen_ms[held], known.seen_ms[row])
    seen_ms = np.where(is_open, tracks.since_seen_ms[held], away_ms)
    rank = np.where(is_open, 0, np.where(is_ended, 2, 1))
    order = np.lexsort((held, -tracks.peak["score"][held].astype(np.float64), -seen_ms, rank))
    return held[order]


def _anomaly(board: Board, view: View, track: int, most: int) -> dict[str, Any]:
    tracks, known = board.tracks, board.known
    row = int(tracks.row[track])
    watched = view.names[int(known.pipeline[row])]
    steps = _latest(tracks.steps.of(track), _GAP_LEADS * board.limits.lead_steps * watched.step_ms)
    last, peak = known.lead.of(row)[-1], tracks.peak[track]
    flags = int(last["flags"])
    ended_ms = int(tracks.ended_ms[track])
    label, group = board.groups.names[int(known.group[row])]
    return {
        "id": f"{watched.name}/{known.id(row)}",
        "labels": _unique(tracks.labels(track)),
        "pipeline": watched.name,
        "group": group if label else None,
        "state": "ended" if ended_ms else "away" if row in view.gone else "open",
        **_step(last),
        "peak": {"time_ms": int(peak["time_ms"]), **_step(peak)},
        "since_ms": int(tracks.since_ms[track]),
        "is_start_known": bool(tracks.is_start[track]),
        "ended_ms": ended_ms or None,
        "newest_ms": int(known.newest_ms[row]),
        "seen_ms": int(known.seen_ms[row]),
        "is_young": bool(flags & ScoreFlag.YOUNG),
        "is_muted": bool(flags & ScoreFlag.MUTED),
        "has_forecast": not flags & ScoreFlag.NO_FORECAST,
        "step_ms": watched.step_ms,
        "steps": _columns(steps[-most:] if most else steps[:0]),
    }


def _latest(steps: NDArray[np.void], gap_ms: int) -> NDArray[np.void]:
    """The steps after the last long gap: what was before it would squeeze the chart of an episode."""
    gaps = np.flatnonzero(np.diff(steps["time_ms"]) > gap_ms)
    return steps[gaps[-1] + 1 :] if gaps.size else steps


def _step(step: np.void) -> dict[str, Any]:
    return {
        "value": _value(step["value"]),
        "expected": {name: _value(step[name]) for name in ("median", "lower", "upper")},
        "score": _value(step["score"], 4),
        "reason": _reason(int(step["reason"])),
    }


def _unique(labels: Labels) -> Mapping[str, str]:
    """Cut names may meet."""
    return dict(labels)


def _reason(number: int) -> dict[str, str | None]:
    try:
        reason = Reason(number)
    except ValueError:  # of a newer release
        return {"code": str(number), "text": None}
    return {"code": reason.name.lower(), "text": reason.text}


def _columns(steps: NDArray[np.void]) -> dict[str, list[Any]]:
    return {
        "time_ms": steps["time_ms"].tolist(),
        **{name: _numbers(steps[name], _CHART_DIGITS) for name in ("value", "median", "lower", "upper")},
        "score": _numbers(steps["score"], 4),
        "is_open": ((steps["flags"] & ScoreFlag.OPEN) != 0).tolist(),
        "has_forecast": ((steps["flags"] & ScoreFlag.NO_FORECAST) == 0).tolist(),
    }


def _value(number: Any, digits: int = _DIGITS) -> float | None:
    return float(f"{number:.{digits}g}") if np.isfinite(number) else None


def _numbers(values: NDArray[np.floating], digits: int) -> list[float | None]:
    """Numbers of so many significant digits: what a chart shows, and half the bytes. None for NaN."""
    if not values.size:
        return []
    values = values.astype(np.float64)
    with np.errstate(all="ignore"):
        scale = 10.0 ** (digits - 1 - np.floor(np.log10(np.abs(values))))
        rounded = np.round(values * scale) / scale
    # What cannot be scaled stays: 0, and numbers at the ends of float64.
    out: list[float | None] = np.where(np.isfinite(rounded), rounded, values).tolist()
    for i in np.flatnonzero(~np.isfinite(values)).tolist():
        out[i] = None
    return out
