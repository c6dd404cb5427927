"""One pipeline of pull mode: ask for the steps that are new, score them, write the scores.

The grid. A query at time t, a multiple of the step, tells of the time that ends at t, as `rate(x[1m])` does.
So its value is that of the bucket [t - step, t), whose score has the timestamp t: it is fed as a sample of
t - 1 ms, the last moment of that bucket. A stream that got that sample would give the same score at the same
time. One value a step needs no `aggregate`.
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from openanomaly.core.frames import SampleFrame, ScoreFrame
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.ports.tsdb_client import Samples, TSDBClient
from openanomaly.core.series import encode_labels, series_id
from openanomaly.core.series_column import SeriesColumn
from openanomaly.core.services.local import LocalScoring
from openanomaly.core.services.pull_report import PullOptions, Report, add_up
from openanomaly.core.services.pull_state import PullState, StateStore, definition_of
from openanomaly.core.windows.output import Emit
from openanomaly.errors import (
    MalformedFrameError,
    QueryRejectedError,
    TsdbUnavailableError,
    UnknownVersionError,
)

log = logging.getLogger(__name__)

_NAMELESS = encode_labels((("", ""),))
"""Stands for no labels at all, as of `sum(x)`: an empty block would mean that labels are not known."""
_NAMELESS_ID = np.frombuffer(series_id(_NAMELESS), "<u8")
_PIECE_SAMPLES = 2_000_000
_IDLE_STEPS = 10

MakeScoring = Callable[[Pipeline], LocalScoring]


class PulledPipeline:
    """What is known of a pipeline. One thread at a time.

    Attributes:
        done_ms: time of the newest step that was scored; None before the first run.
        pending: scores that wait for the target.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        client: TSDBClient,
        store: StateStore,
        make_scoring: MakeScoring,
        turn: threading.Lock,
        options: PullOptions,
    ) -> None:
        """`turn` is held while scoring: an engine takes one thread at a time."""
        assert pipeline.query is not None
        self.pipeline = pipeline
        self.query = pipeline.query
        self._client = client
        self._store = store
        self._scored = pipeline.scored
        self._make_scoring = make_scoring
        self._turn = turn
        self._options = options
        self._step_ms = pipeline.step_ms
        self._lateness_ms = round(pipeline.lateness_s * 1000)
        self._definition = definition_of(self._scored.model_copy(update={"query": pipeline.query}))
        self.reset()

    def reset(self) -> None:
        """Forget what was not saved; the next run begins from what is."""
        self._scoring: LocalScoring | None = None
        self.done_ms: int | None = None
        self._saved_ms: int | None = None
        self._floor_ms = 0
        self._frames: list[ScoreFrame] = []
        self._counted: Counter[str] = Counter()
        self._warned: tuple[str, ...] = ()

    @property
    def pending(self) -> int:
        return sum(len(frame.row) for frame in self._frames)

    @property
    def series(self) -> int:
        return self._scoring.partition.series if self._scoring is not None else 0

    def newest_ms(self, now_ms: int) -> int:
        """The newest step that can be asked for: `lateness_s` ago it was over."""
        return (now_ms - self._lateness_ms) // self._step_ms * self._step_ms

    # -- a run -----------------------------------------------------------------------------------

    def run(self, now_ms: int, emit: Emit = "all") -> Report:
        """Catch up to `now_ms`. What can go wrong outside is in the report; the next run goes on there.

        Raises:
            Exception: a mistake of ours, or of the state's disk. `reset`, then the next run begins anew.
        """
        report = Report()
        scoring = self._scoring or self._begin()
        end_ms = self.newest_ms(now_ms)
        is_taken = self._deliver(report)
        if is_taken or self.pending < self._options.pending_limit:
            first_ms = self._first_ms(end_ms, report)
            for piece_ms, last_ms in self._pieces(first_ms, end_ms):
                if not self._ask(scoring, piece_ms, last_ms, now_ms, emit, report):
                    break
                if self.pending >= self._options.pending_limit and not (is_taken and self._deliver(report)):
                    break
            if is_taken:
                self._deliver(report)
        self._save(scoring)
        report.counts = scoring.counts - self._counted
        self._counted = scoring.counts
        return report

    def _begin(self) -> LocalScoring:
        """Windows as they were saved, or empty ones."""
        scoring = self._scoring = self._make_scoring(self._scored)
        saved = self._store.load(self.pipeline.name)
        if saved is None:
            return scoring
        try:
            state = PullState.decode(saved)
            if state.definition != self._definition:
                log.info(
                    "pipeline %s has another query or step than before: it begins anew", self.pipeline.name
                )
                return scoring
            scoring.load(state.windows)
        except (MalformedFrameError, UnknownVersionError) as exc:
            log.warning("pipeline %s begins anew, its state cannot be used: %s", self.pipeline.name, exc)
            return scoring
        self.done_ms = self._saved_ms = self._floor_ms = state.done_ms
        return scoring

    def _first_ms(self, end_ms: int, report: Report) -> int:
        """The first step to ask for. A new pipeline reads history, and writes scores from now on."""
        step_ms = self._step_ms
        if self.done_ms is None:
            steps = self.pipeline.context + self.pipeline.score.warmup
            history_ms = min(steps * step_ms, round(self._options.history_s * 1000) // step_ms * step_ms)
            self.done_ms, self._floor_ms = end_ms - step_ms - history_ms, end_ms
        limit_ms = max(step_ms, round(self._options.catch_up_s * 1000) // step_ms * step_ms)
        if self.done_ms < self._floor_ms:  # history, which a query that fails may have cut short
            self._floor_ms = max(self._floor_ms, end_ms - limit_ms + step_ms)
        elif self.done_ms < end_ms - limit_ms:
            report.skipped = (end_ms - limit_ms - self.done_ms) // step_ms
            self.done_ms = end_ms - limit_ms
            log.warning(
                "pipeline %s: %d steps were missed for longer than pull.catch_up_s=%g and are left out",
                self.pipeline.name,
                report.skipped,
                self._options.catch_up_s,
            )
        return self.done_ms + step_ms

    def _pieces(self, first_ms: int, end_ms: int) -> Iterator[tuple[int, int]]:
        """First and last step of each query: history of many series would be more than is taken at once."""
        span_ms = max(1, _PIECE_SAMPLES // self._options.series_limit) * self._step_ms
        for start_ms in range(first_ms, end_ms + 1, span_ms):
            yield start_ms, min(start_ms + span_ms - self._step_ms, end_ms)

    def _ask(
        self, scoring: LocalScoring, first_ms: int, last_ms: int, now_ms: int, emit: Emit, report: Report
    ) -> bool:
        """Score the steps of one query; False where it has no answer now."""
        try:
            samples = self._client.range_query(self.query, first_ms, last_ms, self._step_ms)
        except (QueryRejectedError, TsdbUnavailableError) as exc:
            report.outcome = "refused" if isinstance(exc, QueryRejectedError) else "unavailable"
            report.error = str(exc)
            return False
        for warning in samples.warnings:
            if warning not in self._warned:  # the same at every step is told once
                log.warning("pipeline %s: %s says: %s", self.pipeline.name, self._client.shown, warning)
        self._warned = samples.warnings
        with self._turn:
            frames = self._score(scoring, samples, last_ms, now_ms, emit)
        self.done_ms = last_ms
        report.steps += (last_ms - first_ms) // self._step_ms + 1
        report.samples += len(samples)
        for frame in frames:
            new = np.flatnonzero(frame.timestamp_ms >= self._floor_ms)
            report.scores += len(frame.row)
            report.history += len(frame.row) - new.size
            if new.size:
                self._frames.append(_named(frame if new.size == len(frame.row) else frame.take(new)))
        return True

    def _score(
        self, scoring: LocalScoring, samples: Samples, last_ms: int, now_ms: int, emit: Emit
    ) -> list[ScoreFrame]:
        scoring.partition.emit = emit
        frames: list[ScoreFrame] = []
        if len(samples):
            # A series without a sample would be given a row, and one that has gone get its row back.
            there, row = np.unique(samples.row, return_inverse=True)
            frames += scoring.put(
                SampleFrame(
                    SeriesColumn.of([samples.blocks[i] or _NAMELESS for i in there.tolist()]),
                    row.astype(np.uint32),
                    samples.timestamp_ms - 1,
                    samples.value,
                    received_ms=0,  # no source has a delay of its own: that of the pipeline was waited for
                ),
                now_ms,
            )
        # Nothing comes later for these steps. The time is that of the grid, so that a repeat does the same.
        grid_ms = last_ms + self._lateness_ms
        frames += [replace(frame, closed_ms=now_ms) for frame in scoring.tick(grid_ms)]
        ttl_ms = max(round(self._options.idle_ttl_s * 1000), _IDLE_STEPS * self._step_ms)
        scoring.evict(grid_ms, ttl_ms)
        return frames

    # -- results ---------------------------------------------------------------------------------

    def _deliver(self, report: Report) -> bool:
        """Write what waits; False while the target is away."""
        if not self._frames:
            return True
        try:
            written = self._client.write(self._frames)
        except TsdbUnavailableError as exc:
            report.outcome, report.error = "target", str(exc)
            return False
        self._frames = []
        report.written = add_up(report.written, written)
        if written.words:
            log.warning("pipeline %s: scores are refused: %s", self.pipeline.name, written.words)
        return True

    def _save(self, scoring: LocalScoring) -> None:
        """Keep what is known, once its scores are written: after a crash the others are made again."""
        is_complete = self.done_ms is not None and self.done_ms >= self._floor_ms and not self._frames
        if not is_complete or self.done_ms == self._saved_ms:
            return
        assert self.done_ms is not None
        state = PullState(self._definition, self.done_ms, scoring.dump())
        self._store.save(self.pipeline.name, state.encode())
        self._saved_ms = self.done_ms


def _named(frame: ScoreFrame) -> ScoreFrame:
    """The frame with no labels where there are none."""
    is_nameless = (frame.series.ids == _NAMELESS_ID).all(axis=1)
    if not is_nameless.any():
        return frame
    blocks = [b"" if is_nameless[i] else frame.series.block(i) for i in range(len(frame.series))]
    return replace(frame, series=SeriesColumn.of(blocks, frame.series.kind))
