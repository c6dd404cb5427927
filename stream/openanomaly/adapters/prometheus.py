"""Prometheus, VictoriaMetrics, Mimir, Thanos: their query API, and remote-write 1.0 for scores."""

import asyncio
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np

from openanomaly.adapters import promql
from openanomaly.adapters.http_endpoint import HttpEndpoint, Observe, OverLimitError, Reply
from openanomaly.adapters.remote_write.client import Target
from openanomaly.adapters.remote_write.delivery import Delivery, Refusal
from openanomaly.adapters.remote_write.encode import HEADERS, Encoded, ScoreEncoder, pack
from openanomaly.core.frames import ScoreFrame
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.ports.tsdb_client import Samples, Written
from openanomaly.errors import (
    AnswerTooLargeError,
    QueryRejectedError,
    RejectedError,
    RequestTooLargeError,
    TsdbUnavailableError,
)

_QUERY_REFUSED = (400, 413, 414, 422)
_WRITE_REFUSED = (400, 409, 413, 422)
_WRITE_PATH = "/api/v1/write"
_WRITE_ANSWER_BYTES = 64 << 10
_QUERY_SHOWN = 300


@dataclass(frozen=True, slots=True)
class QueryLimits:
    """What is asked for at once, and how much is taken; names are those of the `pull` settings.

    Attributes:
        points_limit: of a series in one request. Prometheus refuses more than 11,000.
        answer_limit_bytes: of all answers to one query, unpacked.
    """

    points_limit: int = 11_000
    series_limit: int = 10_000
    answer_limit_bytes: int = 256 << 20
    retries: int = 3


DEFAULT_LIMITS = QueryLimits()


class PrometheusAdapter:
    """A TSDBClient over HTTP. Queries of several threads go side by side, writes one after another."""

    def __init__(
        self,
        read: Target,
        write: Target | None = None,
        limits: QueryLimits = DEFAULT_LIMITS,
        encoder: ScoreEncoder | None = None,
        batch_samples: int = 10_000,
        observe: Observe = lambda what, code, seconds: None,
    ) -> None:
        """`read` is the address before /api/v1/query. `write` is where remote-write requests go; without it
        scores go nowhere.

        Raises:
            ConfigError: a file cannot be read, or settings contradict each other.
        """
        self._limits = limits
        self._read = HttpEndpoint(read, "pull", limits.retries, observe)
        self._write = HttpEndpoint(write, "sink", limits.retries, observe) if write is not None else None
        self._write_path = _WRITE_PATH if write and urlsplit(write.url).path in ("", "/") else ""
        self._timeout = f"{read.timeout_s:g}s"
        self._encoder = encoder or ScoreEncoder()
        self._delivery = Delivery(self._send, batch_samples)
        self._writing = threading.Lock()
        self._has_taken = False
        self.shown = self._read.shown
        self.target_shown = self._write.shown + self._write_path if self._write is not None else None

    def close(self) -> None:
        """What is asked now, or waits for its next try, ends as unavailable."""
        self._read.close()
        if self._write is not None:
            self._write.close()

    # -- queries -------------------------------------------------------------------------------

    def range_query(self, query: str, start_ms: int, end_ms: int, step_ms: int) -> Samples:
        span_ms = (self._limits.points_limit - 1) * step_ms
        asked = _Asked(query, self._limits)
        answers = []
        # A part begins one step behind the end of the one before: no point is asked for twice or left out.
        for first_ms in range(start_ms, end_ms + 1, span_ms + step_ms):
            times = {"start": first_ms, "end": min(first_ms + span_ms, end_ms), "step": step_ms}
            answers.append(self._ask("query_range", asked, times))
        return asked.checked(promql.merge(answers))

    def instant_query(self, query: str, at_ms: int) -> Samples:
        asked = _Asked(query, self._limits)
        return asked.checked(promql.merge([self._ask("query", asked, {"time": at_ms})]))

    def raw_query(self, selector: str, start_ms: int, end_ms: int) -> Samples:
        if end_ms < start_ms:
            return Samples.none()
        # Servers do not agree whether the first moment of a range belongs to it: one more is asked for.
        asked = _Asked(f"{selector}[{end_ms - start_ms + 1}ms]", self._limits)
        found = promql.merge([self._ask("query", asked, {"time": end_ms})])
        return asked.checked(found.where((found.timestamp_ms >= start_ms) & (found.timestamp_ms <= end_ms)))

    def _ask(self, what: str, asked: "_Asked", times_ms: Mapping[str, int]) -> promql.Answer:
        form = {"query": asked.query, "timeout": self._timeout}
        form |= {name: promql.seconds(value) for name, value in times_ms.items()}
        # VictoriaMetrics would move the bounds to where its cache has them, and repeat older values at the
        # newest points. The others do not know these.
        form |= {"nocache": "1", "latency_offset": "1ms"}
        try:
            reply = self._read.post(what, f"/api/v1/{what}", form, {}, asked.bytes_left, _QUERY_REFUSED)
        except OverLimitError as exc:
            raise asked.too_large(
                f"more than {self._limits.answer_limit_bytes} bytes, the limit", "bytes"
            ) from exc
        if reply.status in _QUERY_REFUSED:
            raise QueryRejectedError(
                f"{self.shown} refuses the query {asked.shown}: {reply.status} {promql.failure(reply.body)}"
            )
        asked.bytes_left -= len(reply.body)
        try:
            return promql.decode(reply.body)
        except promql.AnswerError as exc:
            raise TsdbUnavailableError(f"{self.shown} does not answer as a query API: {exc}") from exc

    # -- scores --------------------------------------------------------------------------------

    def redefine(self, pipelines: Sequence[Pipeline]) -> None:
        """Pipelines have other labels and outputs from now on."""
        self._encoder.redefine(pipelines)

    def write(self, frames: Sequence[ScoreFrame]) -> Written:
        if self._write is None:
            return Written(dropped=_some({"no_target": sum(len(frame.row) for frame in frames)}))
        with self._writing:  # samples of a series stay in their order
            encoded = [self._encoder.encode(frame) for frame in frames]
            refused = asyncio.run(self._delivery.deliver([part for e in encoded for part in e.parts]))
        return _written(frames, encoded, refused)

    async def _send(self, body: bytes) -> None:
        """What Delivery awaits. It blocks: nothing else runs in that loop."""
        reply = self._offer(body)
        if reply.status not in _WRITE_REFUSED:
            self._has_taken = True
            return
        # Some servers answer 400 behind a wrong path. Who has taken nothing yet, and refuses a request
        # without samples too, refuses the address and not what we say.
        text = f"{self.target_shown} answers {reply.status}: {reply.words}"
        if not self._has_taken and self._offer(pack([])).status in _WRITE_REFUSED:
            raise TsdbUnavailableError(f"{text} (even without samples; is sink.url its write address?)")
        raise RequestTooLargeError(text) if reply.status == 413 else RejectedError(text)

    def _offer(self, body: bytes) -> Reply:
        assert self._write is not None
        try:
            return self._write.post(
                "write", self._write_path, body, HEADERS, _WRITE_ANSWER_BYTES, _WRITE_REFUSED
            )
        except OverLimitError as exc:
            raise TsdbUnavailableError(f"{self.target_shown} does not answer as a target of writes") from exc


class _Asked:
    """A query and what is left of its limits."""

    def __init__(self, query: str, limits: QueryLimits) -> None:
        self.query = query
        self.shown = repr(query if len(query) <= _QUERY_SHOWN else query[:_QUERY_SHOWN] + "…")
        self.bytes_left = limits.answer_limit_bytes
        self._series_limit = limits.series_limit

    def checked(self, samples: Samples) -> Samples:
        if len(samples.blocks) > self._series_limit:
            raise self.too_large(f"{len(samples.blocks)} series, limit {self._series_limit}", "series")
        return samples

    def too_large(self, what: str, limit: str) -> AnswerTooLargeError:
        name = {"bytes": "pull.answer_limit_bytes", "series": "pull.series_limit"}[limit]
        return AnswerTooLargeError(
            f"the answer to {self.shown} has {what}; ask for less, as by `sum by`, or raise {name}"
        )


def _written(frames: Sequence[ScoreFrame], encoded: Sequence[Encoded], refused: Sequence[Refusal]) -> Written:
    """What came in is written, or dropped by reason: as the sink counts it."""
    lost = np.zeros(sum(map(len, encoded)), bool)
    for refusal in refused:
        lost[refusal.start : refusal.stop] = True
    scores = start = 0
    dropped = {"rejected": 0, "unknown": 0}
    for frame, one in zip(frames, encoded, strict=True):
        gone, tried = np.zeros((2, len(frame.row)), bool)
        gone[one.row[lost[start : start + len(one)]]] = True
        tried[one.row] = True
        start += len(one)
        scores += int((tried & ~gone).sum())
        dropped["rejected"] += int(gone.sum())
        dropped["unknown"] += int((~tried).sum()) - sum(one.skipped.values())
        for reason, count in one.skipped.items():
            dropped[reason] = dropped.get(reason, 0) + count
    words = refused[0].words if refused else ""
    return Written(scores, int((~lost).sum()), _some(dropped), words)


def _some(counts: dict[str, int]) -> dict[str, int]:
    return {reason: count for reason, count in counts.items() if count}
