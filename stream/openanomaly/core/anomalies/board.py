"""What is anomalous now and was a while ago, from the scores of all pipelines.

A pure function of the frames it is given, in their order; time is passed in. Whole frames at once: a
step of a series that is normal costs a few array operations and no Python. "Now" of a series is its
newest step, whatever the wall clock says: replayed history is shown like live samples.
"""

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.anomalies.known import NOT_TRACKED, Groups, Known
from openanomaly.core.anomalies.steps import Steps, steps_of
from openanomaly.core.anomalies.tracks import Tracks
from openanomaly.core.census import Census
from openanomaly.core.frames import ScoreFlag, ScoreFrame
from openanomaly.core.idtable import MISSING
from openanomaly.core.presence import CENSUS_EVERY_MS, patience_ms
from openanomaly.core.series import Ids, decode_labels
from openanomaly.core.windows.rows import Rows
from openanomaly.errors import MalformedRequestError

_PIPELINES = 1_000
_SWEEP_MS = 10_000
_CENSUS_MS = 4 * CENSUS_EVERY_MS
"""Of windows that told none for so long, none is believed."""
_OF_EPISODE = ScoreFlag.OPEN | ScoreFlag.END
_MARKER = ScoreFlag.END | ScoreFlag.SILENT


@dataclass(frozen=True, slots=True)
class Limits:
    """What a board may hold.

    Attributes:
        series: of all pipelines, with `lead_steps` steps of each: what a chart shows before its episode.
        anomalies: series that are anomalous or were, with `steps` steps of each.
        recent_ms: how long the latter are kept, on the wall clock.
    """

    series: int = 50_000
    lead_steps: int = 24
    anomalies: int = 1_000
    steps: int = 240
    recent_ms: int = 3_600_000


@dataclass(slots=True)
class Watched:
    """A pipeline as its scores show it.

    Attributes:
        newest_ms: time of its newest step.
        seen_ms: wall clock when its newest steps came.
        normal_seen_ms: the same of steps outside episodes: while they come, every series is known.
        marker_seen_ms: the same of steps after which nothing comes, as where only episodes are emitted.
        gone_ms: when series were forgotten that had no step for a while.
    """

    name: str
    number: int
    step_ms: int = 0
    newest_ms: int = 0
    seen_ms: int = 0
    normal_seen_ms: int = 0
    marker_seen_ms: int = 0
    gone_ms: int = 0
    censuses: dict[int, tuple[int, Census]] = field(default_factory=dict)
    """By partition the newest one, and when it came."""

    @property
    def patience_ms(self) -> int:
        return patience_ms(self.step_ms)


class Board:
    """Series in episodes with their recent steps, and how many there are of each group.

    `counts`: scores `in` are `taken`, `repeated` or `left_out`; `untracked` counts steps in episodes of
    series that there was no room to track.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.known = Known(limits.series, limits.lead_steps)
        self.tracks = Tracks(limits.anomalies, min(limits.steps, 100_000))
        self.groups = Groups()
        self.pipelines: dict[str, Watched] = {}
        self._removed: frozenset[str] = frozenset()
        self.counts: Counter[str] = Counter({"in": 0, "taken": 0, "repeated": 0, "left_out": 0})
        self.clock_ms = 0
        """Wall clock when the newest steps came."""
        self.version = 0
        """Another number for another board."""
        self._swept_ms = 0

    def take(self, frame: ScoreFrame, now_ms: int, partition: int = 0, is_live: bool = True) -> None:
        """One frame of scores of a partition; live, if it comes just after it was written.

        What is live is seen when it comes, whatever the clock of its worker says: one that is slow would
        make its series look as if they had gone. For what was written before we came there is no other clock.

        Raises:
            MalformedFrameError: its labels cannot be read.
        """
        if frame.of_groups:
            return  # groups are shown by their series
        self.version += 1
        self.counts["in"] += len(frame.row)
        watched = self._watched(frame.pipeline)
        if watched is None:
            self.counts["left_out"] += len(frame.row)
            return
        seen_ms = now_ms if is_live else min(frame.closed_ms, now_ms)
        if len(frame.row) or (frame.census is not None and frame.census.closed):
            # Partitions are caught up with one after the other; later our own clock may be set back, and then
            # nobody has gone for that.
            self.clock_ms = seen_ms if is_live else max(self.clock_ms, seen_ms)
            watched.seen_ms = seen_ms if is_live else max(watched.seen_ms, seen_ms)
        if frame.census is not None:
            self._count(watched, frame, frame.census, partition, seen_ms)
        if not len(frame.row):
            return
        self._look(watched, frame, seen_ms)
        steps = steps_of(frame)
        for at in _waves(frame.row):
            self._take(watched, frame, at, steps[at], seen_ms)
        if abs(self.clock_ms - self._swept_ms) > _SWEEP_MS:
            self._swept_ms = self.clock_ms
            self._sweep()

    def keep_only(self, names: Collection[str]) -> None:
        """Other pipelines are no more: nothing of them is shown, nor taken where it still comes."""
        self.version += 1
        self._removed = (self._removed | self.pipelines.keys()) - set(names)
        for watched in [self.pipelines.pop(name) for name in self._removed & self.pipelines.keys()]:
            rows = self.known.rows
            rows = rows[self.known.pipeline[rows] == watched.number]
            tracks = self.known.track[rows]
            self._untrack(tracks[tracks != NOT_TRACKED].astype(np.int64))
            self.known.release(rows)

    def _watched(self, name: str) -> Watched | None:
        watched = self.pipelines.get(name)
        if watched is None and name not in self._removed and len(self.pipelines) < _PIPELINES:
            watched = self.pipelines[name] = Watched(name, self.known.add_pipeline())
        return watched

    def _count(
        self, watched: Watched, frame: ScoreFrame, census: Census, partition: int, seen_ms: int
    ) -> None:
        watched.step_ms = frame.step_ms
        watched.censuses[partition] = seen_ms, census
        watched.newest_ms = max(watched.newest_ms, census.newest_ms)

    def _look(self, watched: Watched, frame: ScoreFrame, seen_ms: int) -> None:
        watched.step_ms = frame.step_ms
        watched.newest_ms = max(watched.newest_ms, int(frame.timestamp_ms.max()))
        if (frame.flags & _OF_EPISODE == 0).any():
            watched.normal_seen_ms = max(watched.normal_seen_ms, seen_ms)
        if (frame.flags & _MARKER == _MARKER).any():
            watched.marker_seen_ms = max(watched.marker_seen_ms, seen_ms)

    def _take(
        self, watched: Watched, frame: ScoreFrame, at: NDArray[np.int64], steps: Steps, seen_ms: int
    ) -> None:
        """Steps of series that differ from one another."""
        known = self.known
        ids = frame.series.ids[frame.row[at]]
        row = known.find(watched.number, ids)
        unknown = np.flatnonzero(row == MISSING)
        if unknown.size:
            self._admit(watched, frame, at, ids, steps, row, unknown)
        held = row >= 0
        # A step that comes again, as after a crash of its window worker, has the same values.
        is_new = held & (steps["time_ms"] > known.newest_ms[row])
        kept = np.flatnonzero(is_new)
        self.counts["left_out"] += int(len(row) - held.sum())
        self.counts["repeated"] += int(held.sum()) - kept.size
        self.counts["taken"] += kept.size
        row, steps, at = row[kept], steps[kept], at[kept]
        known.lead.put(row, steps)
        known.newest_ms[row] = steps["time_ms"]
        known.seen_ms[row] = seen_ms
        known.flags[row] = steps["flags"]
        track = known.track[row]
        is_tracked = track != NOT_TRACKED
        if is_tracked.any():
            after_ms = self.limits.lead_steps * watched.step_ms
            self.tracks.put(track[is_tracked].astype(np.int64), steps[is_tracked], known.lead, after_ms)
        wanted = np.flatnonzero(~is_tracked & (steps["flags"] & ScoreFlag.OPEN != 0))
        if wanted.size:
            track[wanted] = self._track(frame, at[wanted], row[wanted], steps[wanted])
        followed = np.flatnonzero(track != NOT_TRACKED)
        if followed.size:
            self.tracks.follow(track[followed].astype(np.int64), steps[followed], seen_ms)

    def _admit(
        self,
        watched: Watched,
        frame: ScoreFrame,
        at: NDArray[np.int64],
        ids: Ids,
        steps: Steps,
        row: NDArray[np.int64],
        unknown: NDArray[np.int64],
    ) -> None:
        """Rows for the series at `unknown`, put into `row`. Those in episodes come first."""
        is_open = steps["flags"][unknown] & ScoreFlag.OPEN != 0
        if self.known.room < unknown.size:
            self.known.make_room(int(is_open.sum()))
            unknown = unknown[np.argsort(~is_open, kind="stable")][: self.known.room]
        read, groups = [], []
        for i in unknown.tolist():
            try:
                groups.append(self.groups.of(decode_labels(frame.series.block(frame.row[at[i]]))))
            except MalformedRequestError:
                continue  # left out, and counted so
            read.append(i)
        if read:
            row[read] = self.known.admit(watched.number, ids[read], groups)

    def _track(self, frame: ScoreFrame, at: NDArray[np.int64], row: Rows, steps: Steps) -> NDArray[np.int32]:
        """Tracks of series whose episode is not tracked yet: the highest scores where room is short.

        What is over gives way, then who went away, then open episodes with lower peaks.
        """
        out = np.full(len(row), NOT_TRACKED, np.int32)
        if self.tracks.room < len(row):
            self._untrack(self.tracks.ended[: len(row) - self.tracks.room])
        if self.tracks.room < len(row):
            self._untrack(self._away_tracks()[: len(row) - self.tracks.room])
        if self.tracks.room < len(row):
            self._untrack(self._lower_tracks(steps["score"]))
        chosen = np.arange(len(row))
        if self.tracks.room < len(row):
            chosen = np.argsort(-steps["score"], kind="stable")[: self.tracks.room]
        for i in chosen.tolist():
            block = frame.series.block(frame.row[at[i]])
            out[i] = self.tracks.begin(int(row[i]), block, self.known.lead.of(int(row[i])))
        self.known.track[row] = out
        self.counts["untracked"] += len(row) - chosen.size
        return out

    def _away_tracks(self) -> Rows:
        """Tracks of series that went away in their episode, the longest ago first."""
        held = self.tracks.held
        row = self.tracks.row[held].astype(np.int64)
        away = (self.tracks.ended_ms[held] == 0) & self.is_away(row)
        order: Rows = held[away][np.argsort(self.known.seen_ms[row[away]], kind="stable")]
        return order

    def _lower_tracks(self, score: NDArray[np.float32]) -> Rows:
        """Tracks to give up for episodes that begin with `score`, beyond those that there is room for."""
        held = self.tracks.held
        held = held[np.argsort(self.tracks.peak["score"][held], kind="stable")]
        wanted = -np.sort(-score)[self.tracks.room :][: held.size]
        # Both are in order, the lowest against the highest: from some place on none of the held is lower.
        return held[: wanted.size][self.tracks.peak["score"][held[: wanted.size]] < wanted]

    def _untrack(self, tracks: Rows) -> None:
        self.known.track[self.tracks.row[tracks]] = NOT_TRACKED
        self.tracks.release(tracks)

    def census(self, watched: Watched) -> Census | None:
        """Of a pipeline over all partitions; None where none has told."""
        # Of a partition that is no longer written, or a pipeline that is no more, none follows.
        found = [c for seen_ms, c in watched.censuses.values() if self.clock_ms - seen_ms <= _CENSUS_MS]
        if not found:
            return None
        return Census(
            series=sum(c.series for c in found),
            judged=sum(c.judged for c in found),
            unforecast=sum(c.unforecast for c in found),
            steps_left=min((c.steps_left for c in found if c.steps_left), default=0),
            closed=sum(c.closed for c in found),
            newest_ms=max(c.newest_ms for c in found),
            emits_all=all(c.emits_all for c in found),
        )

    # -- what has gone -------------------------------------------------------------------------

    def is_away(self, rows: Rows) -> NDArray[np.bool_]:
        """Which series have had no step for a while, although others have."""
        patience = np.zeros(self.known.pipelines + 1, np.int64)
        for watched in self.pipelines.values():
            patience[watched.number] = watched.patience_ms
        gone: NDArray[np.bool_] = (
            self.clock_ms - self.known.seen_ms[rows] > patience[self.known.pipeline[rows]]
        )
        return gone

    def _sweep(self) -> None:
        """Forget what is over for long, and series that have gone."""
        tracks, known = self.tracks, self.known
        held = tracks.held
        seen_ms = np.where(
            tracks.ended_ms[held] != 0, tracks.ended_seen_ms[held], known.seen_ms[tracks.row[held]]
        )
        self._untrack(held[self.clock_ms - seen_ms > self.limits.recent_ms])
        rows = known.rows
        rows = rows[self.is_away(rows)]
        # One that left in an episode is shown as such for a while.
        gone = rows[known.track[rows] == NOT_TRACKED]
        numbers = known.pipeline[gone]
        for watched in self.pipelines.values():
            if (numbers == watched.number).any():
                watched.gone_ms = self.clock_ms
        known.release(gone)


def _waves(row: NDArray[np.uint32]) -> Iterator[NDArray[np.int64]]:
    """Positions of a frame, in its order, so that each series comes at most once at a time."""
    if len(row) and np.bincount(row).max() == 1:
        yield np.arange(len(row))
        return
    order = np.argsort(row, kind="stable")
    first = np.flatnonzero(np.diff(row[order].astype(np.int64), prepend=-1))
    turn = np.arange(len(row)) - np.repeat(first, np.diff(first, append=len(row)))
    for n in range(int(turn.max(initial=-1)) + 1):
        yield np.sort(order[turn == n])
