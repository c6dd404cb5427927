"""Scores of one pipeline on one block of series."""

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openanomaly.core import kernels
from openanomaly.core.frames import ScoreFlag
from openanomaly.core.pipelines.mute import Muted
from openanomaly.core.pipelines.pipeline import ScoreOptions
from openanomaly.core.scoring import state as fields
from openanomaly.core.scoring.blocks import turn_over
from openanomaly.core.scoring.channels import YOUNG_STEPS, Judging, Memory, Tables, Verdict, judge
from openanomaly.core.scoring.compiled import steps
from openanomaly.core.scoring.compiled.runs import Runs
from openanomaly.core.scoring.episodes import Episodes
from openanomaly.core.scoring.reason import CHANNELS, QUIET, Reason
from openanomaly.core.scoring.state import Field, Rows, State, places

CHUNK = 4096
"""Rows judged at once: what they need stays in the second-level cache."""

OUT_OF_RANGE = np.float32(1.01)


@dataclass(frozen=True, slots=True)
class Judged:
    """What a call says of n rows.

    Attributes:
        score: (n,) float32; 1 is the edge of normal, 10 the most; NaN in warm-up.
        raw: (n,) float32, the ratio behind it, NaN in warm-up.
        reason: (n,) uint8, Reason; NONE below 1.
        flags: (n,) uint8, ScoreFlag.
        lower, upper: (n,) float64, where the channels of one step would say 1; NaN where unknown.
        filed: (n,) whether the row's cold fields changed.
    """

    score: NDArray[np.float32]
    raw: NDArray[np.float32]
    reason: NDArray[np.uint8]
    flags: NDArray[np.uint8]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    filed: NDArray[np.bool_]

    @classmethod
    def empty(cls, n: int) -> "Judged":
        """Columns to be filled: no score, no reason, no edges."""
        return cls(
            np.full(n, np.nan, np.float32),
            np.full(n, np.nan, np.float32),
            np.zeros(n, np.uint8),
            np.zeros(n, np.uint8),
            np.full(n, np.nan),
            np.full(n, np.nan),
            np.zeros(n, bool),
        )

    def take(self, at: slice | Rows) -> "Judged":
        """What is said of the steps `at`."""
        return Judged(*(getattr(self, f.name)[at] for f in dataclasses.fields(self)))

    def put(self, at: Rows, part: "Judged") -> None:
        """Write what is said of the steps `at`."""
        for f in dataclasses.fields(self):
            getattr(self, f.name)[at] = getattr(part, f.name)


class Scorer:
    """Judges steps by what their series did in memory. Holds options only; state is the caller's."""

    fields: tuple[Field, ...] = fields.FIELDS

    def __init__(self, options: ScoreOptions) -> None:
        self.options = options
        self._judging = _judging(options)
        self._tables = Tables.make()
        least = options.min_deviation > 0 or options.min_relative_deviation > 0
        self._is_plain = options.data_range is None and not least
        self._hushed = np.float32(0.99 * min(1.0, options.alert_score))

    def allocate(self, rows: int) -> State:
        """State of fresh rows: name -> (rows, *tail)."""
        return fields.allocate(rows)

    def reset(self, state: State, rows: Rows) -> None:
        """Make rows fresh again."""
        fields.reset(state, rows)

    def update(
        self,
        state: State,
        rows: slice | Rows,
        bucket: NDArray[np.int64],
        y: NDArray[np.float64],
        band: NDArray[np.floating],
        mute: NDArray[np.uint8] | None = None,
    ) -> Judged:
        """Judge one step of each of `rows`, and learn from it.

        A row's result and state depend on its own steps only, to the bit; whether rows come as a
        slice or as an array makes no difference.

        Args:
            rows: n rows, ascending, each once.
            bucket: (n,) the step judged; ascends per row from call to call.
            y: (n,) finite values.
            band: (n, 5) quantiles of LEVELS for this step; NaN rows where there is no forecast.
            mute: (n,) Muted; None where nothing is.
        """
        if mute is None and self._is_plain and kernels.WINDOWS.ready():
            filed = self._turn_over(state, rows, bucket, y)
            return Judged(
                *steps.judge(
                    state, rows, bucket, y, band, self._tables, self._judging,
                    self.options.alert_score, self.options.quiet,
                ),
                filed,
            )  # fmt: skip
        out = Judged.empty(len(y))
        at: Rows | None = None  # positions in the call of what is judged, if not all
        usual = self._usual(y, mute)
        with np.errstate(all="ignore"):  # infinities of fresh lists; what they give is masked
            if usual is not None:
                every = np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
                at = np.flatnonzero(~usual)
                self._unlearned(state, every[at], bucket[at], None if mute is None else mute[at], out, at)
                at = np.flatnonzero(usual)
                rows, bucket, y, band = every[at], bucket[at], y[at], band[at]
                mute = None if mute is None else mute[at]
            for i in range(0, len(y), CHUNK):
                part = slice(i, min(i + CHUNK, len(y)))
                if isinstance(rows, slice):
                    some: slice | Rows = slice(rows.start + part.start, rows.start + part.stop)
                else:
                    some = rows[part]
                to = part if at is None else at[part]
                quiet = None if mute is None else mute[part]
                self._chunk(state, some, bucket[part], y[part], band[part], quiet, out, to)
        return out

    def run(
        self,
        state: State,
        rows: Rows,
        bucket: NDArray[np.int64],
        y: NDArray[np.float64],
        band: NDArray[np.floating],
        mute: NDArray[np.uint8] | None = None,
    ) -> Judged:
        """Judge many steps of each row: what as many calls of `update` would say, one for each bucket.

        Args:
            rows: n rows, ascending, each as often as it has steps.
            bucket: (n,) ascends within a row.
            y, band, mute: as in `update`.
        """
        out = Judged.empty(len(y))
        if mute is None and self._is_plain and kernels.WINDOWS.ready():
            self._run_compiled(state, rows, bucket, y, band, out)
            return out
        order = np.lexsort((rows, bucket))
        edges = np.flatnonzero(np.diff(bucket[order])) + 1
        for at in np.split(order, edges):
            if at.size:
                quiet = None if mute is None or not mute[at].any() else mute[at]
                out.put(at, self.update(state, rows[at], bucket[at], y[at], band[at], quiet))
        return out

    def _run_compiled(
        self,
        state: State,
        rows: Rows,
        bucket: NDArray[np.int64],
        y: NDArray[np.float64],
        band: NDArray[np.floating],
        out: Judged,
    ) -> None:
        """Row by row from one edge of a block to the next, where all rows that are at one turn over."""
        progress = Runs(rows, bucket, y, band)
        while (at := progress.position[progress.position < progress.end]).size:
            out.filed[at] = self._turn_over(state, rows[at], bucket[at], y[at])
            progress.judge(
                state, self._tables, self._judging, self.options.alert_score, self.options.quiet, out
            )

    def _usual(self, y: NDArray[np.float64], mute: NDArray[np.uint8] | None) -> NDArray[np.bool_] | None:
        """(n,) which steps are judged by memory and learned; None if all are."""
        usual = np.ones(len(y), bool)
        if self.options.data_range is not None:
            low, high = self.options.data_range
            usual = (y >= low) & (y <= high)
        if mute is not None:
            usual &= mute != Muted.IGNORED
        return None if usual.all() else usual

    def _unlearned(
        self,
        state: State,
        rows: Rows,
        bucket: NDArray[np.int64],
        mute: NDArray[np.uint8] | None,
        out: Judged,
        at: Rows,
    ) -> None:
        """Judge rows of which nothing is learned: a fixed score outside `data_range`, none if ignored."""
        m = _gather(state, rows)
        ready = m["age"] >= self.options.warmup
        if mute is not None:
            ready &= mute != Muted.IGNORED
        score = np.where(ready, OUT_OF_RANGE, np.float32(np.nan))
        reason = np.where(ready, np.uint8(Reason.OUT_OF_RANGE), np.uint8(0))
        out.raw[at] = score
        if self.options.data_range is not None:
            out.lower[at], out.upper[at] = self.options.data_range
        self._hush(score, reason, mute)
        out.score[at], out.reason[at] = score, reason
        out.flags[at] = self._flags(m, bucket, score, reason, mute)
        _scatter(state, rows, m)

    def _hush(
        self, score: NDArray[np.float32], reason: NDArray[np.uint8], mute: NDArray[np.uint8] | None
    ) -> None:
        """Hold muted scores below the alarm, in place."""
        if mute is not None:
            high = np.flatnonzero((mute != Muted.NO) & (score > self._hushed))
            score[high], reason[high] = self._hushed, Reason.NONE

    def _turn_over(
        self, state: State, rows: slice | Rows, bucket: NDArray[np.int64], y: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Open the blocks that hold the steps; (n,) which are new."""
        late: NDArray[np.bool_] = bucket >= state["until"][rows]
        if late.any():
            every = np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
            with np.errstate(all="ignore"):
                turn_over(state, every[late], bucket[late], y[late], self.options.block, self.options.memory)
        return late

    def _chunk(
        self,
        state: State,
        rows: slice | Rows,
        bucket: NDArray[np.int64],
        y: NDArray[np.float64],
        band: NDArray[np.floating],
        mute: NDArray[np.uint8] | None,
        out: Judged,
        to: slice | Rows,
    ) -> None:
        out.filed[to] = self._turn_over(state, rows, bucket, y)
        m = _gather(state, rows)
        ready = m["age"] >= self.options.warmup  # before this step is counted
        young = m["age"] < YOUNG_STEPS
        memory = Memory(
            m["open"], m["mean"], m["last"], m["run"], m["age"], m["told"],
            m["first"], m["second"], m["origin"],
        )  # fmt: skip
        verdict = judge(memory, y, band, self._tables, self._judging)
        raw = verdict.ratio
        if not ready.all():
            raw[~ready] = np.nan
        score = raw * raw
        score *= score
        score = np.where(raw < 1, score, raw)
        reason = self._reason(verdict, score)
        self._hush(score, reason, mute)
        flags = self._flags(m, bucket, score, reason, mute)
        flags |= young * np.uint8(ScoreFlag.YOUNG)
        flags |= ~verdict.told * np.uint8(ScoreFlag.NO_FORECAST)
        out.score[to], out.raw[to], out.reason[to], out.flags[to] = score, raw, reason, flags
        out.lower[to], out.upper[to] = verdict.lower, verdict.upper
        _scatter(state, rows, m)

    def _reason(self, verdict: Verdict, score: NDArray[np.float32]) -> NDArray[np.uint8]:
        reason = np.zeros(len(score), np.uint8)
        at = np.flatnonzero(score >= min(1.0, self.options.alert_score))
        if at.size:
            spoke = np.argmax(np.nan_to_num(verdict.channel[:, at], nan=-1), axis=0)
            below = (spoke < QUIET) & (verdict.side[np.minimum(spoke, QUIET - 1), at] < 0)
            reason[at] = 1 + 2 * spoke + below
        return reason

    def _flags(
        self,
        m: State,
        bucket: NDArray[np.int64],
        score: NDArray[np.float32],
        reason: NDArray[np.uint8],
        mute: NDArray[np.uint8] | None,
    ) -> NDArray[np.uint8]:
        episodes = Episodes(m["left"], m["start"], m["peak"], m["reason"])
        flags = episodes.follow(bucket, score, reason, self.options.alert_score, self.options.quiet)
        if mute is not None:
            flags |= (mute != Muted.NO) * np.uint8(ScoreFlag.MUTED)
        return flags


def _gather(state: State, rows: slice | Rows) -> State:
    """What a step reads of `rows`, rows last: views of a slice, copies of an array of rows."""
    m = {f.name: places(state[f.name])[..., rows] for f in fields.FIELDS if f.hot}
    top = places(state["top"])
    m["first"], m["second"], m["origin"] = top[0][:, rows], top[1][:, rows], state["origin"][rows]
    return m


def _scatter(state: State, rows: slice | Rows, m: State) -> None:
    """Put back what a step changed of copies."""
    if isinstance(rows, slice):
        return
    for f in fields.FIELDS:
        if f.hot:
            places(state[f.name])[..., rows] = m[f.name]


def _judging(options: ScoreOptions) -> Judging:
    lower, upper = options.scale
    above = 0.0 if options.direction == "below" else 1 / upper
    below = 0.0 if options.direction == "above" else -1 / lower
    names = CHANNELS if options.channels is None else options.channels
    speaks = np.array([name in names for name in CHANNELS])
    if options.direction != "both":
        speaks[QUIET:] = False  # they have no side
    return Judging(
        np.float32(options.tolerance),
        np.full((5, 1), above, np.float32),
        np.full((5, 1), below, np.float32),
        speaks,
        np.float32(options.min_deviation),
        options.min_relative_deviation,
        options.warmup,
    )
