"""What travels on the broker: columns of many series <-> bytes.

`encode` gives the bytes of a record, `decode` read-only views of them; nothing is copied. The
schema is proto/openanomaly/v1/frames.proto. A record that cannot be read raises
`MalformedFrameError`, one of a newer release `UnknownVersionError`: both are for the dead-letter
topic, never a crash.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntFlag
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.census import Census
from openanomaly.core.contexts import EXPONENT, SMALLEST, Contexts
from openanomaly.core.fields import MOST_BYTES, column, fields_of, index, parse
from openanomaly.core.series import varint
from openanomaly.core.series_column import SeriesColumn
from openanomaly.errors import MalformedFrameError
from openanomaly.pb.openanomaly.v1 import frames_pb2 as pb

VERSION = 1
OF_GROUPS = 2
"""Version of a SampleFrame `of_groups`: to a reader of version 1 they would be samples of a user."""

ROW_BYTES = 24
"""Of a row of a DueFrame or a ForecastFrame, besides its context or quantiles of 2 bytes each."""


class ScoreFlag(IntFlag):
    """What a score says besides its height."""

    START = 1
    """An episode starts with this step."""
    OPEN = 2
    """The series is in an episode."""
    END = 4
    """The episode ended; with `emit: episodes` a staleness marker follows the last score."""
    YOUNG = 8
    """The series has less history than records need to settle."""
    NO_FORECAST = 16
    """Judged by the value channels only."""
    SILENT = 32
    """Not a score for the target: only for the status page, or, with END, a staleness marker."""
    MUTED = 64
    """In a mute window of its pipeline."""


@dataclass(frozen=True, slots=True)
class SampleFrame:
    """Samples of many series of one partition: the unit of work between receiver and windows.

    Attributes:
        series: the S series, each once.
        row: (N,) uint32, index into `series`.
        timestamp_ms: (N,) int64, Unix time; ascending within a series as the sender had it.
        value: (N,) float64. May be NaN. The staleness marker is one exact NaN bit pattern: ask
            `is_stale`, for `value != value` cannot tell it from a plain NaN and float32 loses it.
        received_ms: wall clock of the receiver.
        of_groups: from ourselves: the series are groups, the values what share of each is in an episode.
    """

    series: SeriesColumn
    row: NDArray[np.uint32]
    timestamp_ms: NDArray[np.int64]
    value: NDArray[np.float64]
    received_ms: int
    of_groups: bool = False

    def encode(self, compress: bool = False) -> bytes:
        """The record. Written by hand, field by field: messages would copy every column twice."""
        columns = [(1, self.series.ids), *self.series.label_fields(compress), (4, self.series.kind)]
        series = fields_of(*sorted(columns, key=itemgetter(0)))
        size = sum(len(p) if isinstance(p, bytes) else p.nbytes for p in series)
        samples = fields_of((3, self.row), (4, self.timestamp_ms), (5, self.value))
        version = OF_GROUPS if self.of_groups else VERSION
        parts: list[Any] = [self.head(size, version), *series, *samples]
        if self.received_ms:
            parts.append(b"\x30" + varint(self.received_ms))
        if self.of_groups:
            parts.append(b"\x38\x01")
        return b"".join(parts)

    @staticmethod
    def head(series_bytes: int, version: int = VERSION) -> bytes:
        """What stands before the fields of the series."""
        return b"\x08" + varint(version) + b"\x12" + varint(series_bytes)

    @classmethod
    def decode(cls, record: bytes) -> "SampleFrame":
        m = parse(pb.SampleFrame, record, OF_GROUPS)
        series = SeriesColumn.from_pb(m.series)
        row = index(m.row, len(series))
        n = len(row)
        return cls(
            series,
            row,
            column(m.timestamp_ms, "<i8", "timestamps", n),
            column(m.value, "<f8", "values", n),
            m.received_ms,
            m.of_groups,
        )


@dataclass(frozen=True, slots=True)
class DueFrame:
    """Contexts of N series of one block that need a forecast; T steps each.

    The last step of a context is bucket `origin`. `row` and `generation` say whose it is, and come
    back with the forecast.
    """

    partition: int
    block: int
    forecaster: int
    model: str
    horizon: int
    step_ms: int
    row: NDArray[np.uint32]
    generation: NDArray[np.uint32]
    origin: NDArray[np.int64]
    context: Contexts
    closed_ms: int
    useful_until_ms: int

    def take(self, rows: NDArray[np.int64]) -> "DueFrame":
        """The same for some of the rows."""
        return replace(
            self,
            row=self.row[rows],
            generation=self.generation[rows],
            origin=self.origin[rows],
            context=self.context.take(rows),
        )

    def encode(self) -> bytes:
        head = pb.DueFrame(
            version=VERSION,
            partition=self.partition,
            block=self.block,
            forecaster=self.forecaster,
            model=self.model,
            horizon=self.horizon,
            step_ms=self.step_ms,
            length=self.context.length,
            row=self.row.tobytes(),
            generation=self.generation.tobytes(),
            origin=self.origin.tobytes(),
            closed_ms=self.closed_ms,
            useful_until_ms=self.useful_until_ms,
            center=self.context.center.tobytes(),
            scale=self.context.scale.tobytes(),
        ).SerializeToString()
        # Nearly all of the record, and so not copied through a message. Fields may come in any order.
        context: list[Any] = fields_of((12, self.context.packed))
        return b"".join([head, *context])

    @classmethod
    def decode(cls, record: bytes) -> "DueFrame":
        m = parse(pb.DueFrame, record, VERSION)
        row = column(m.row, "<u4", "rows")
        n = len(row)
        if not 1 <= m.horizon <= 4096 or not 1 <= m.length <= 65536:
            raise MalformedFrameError(f"horizon {m.horizon} or length {m.length} is out of range")
        return cls(
            m.partition,
            m.block,
            m.forecaster,
            m.model,
            m.horizon,
            m.step_ms,
            row,
            column(m.generation, "<u4", "generations", n),
            column(m.origin, "<i8", "origins", n),
            Contexts(
                column(m.context, "<f2", "contexts", n * m.length).reshape(n, m.length),
                column(m.center, "<f4", "centers", n),
                column(m.scale, "<f4", "scales", n),
            ),
            m.closed_ms,
            m.useful_until_ms,
        )


@dataclass(frozen=True, slots=True)
class ForecastFrame:
    """Forecasts of N series: Q quantile levels, H steps from bucket `origin` + 1 on.

    `quantile` is (N, Q, H) float16, (q - center) / scale of its row; scales are powers of two.
    """

    partition: int
    block: int
    forecaster: int
    level: NDArray[np.float32]
    row: NDArray[np.uint32]
    generation: NDArray[np.uint32]
    origin: NDArray[np.int64]
    center: NDArray[np.float32]
    scale: NDArray[np.float32]
    quantile: NDArray[np.float16]

    @classmethod
    def pack(
        cls, due: DueFrame, level: NDArray[np.float32], forecast: NDArray[np.float32]
    ) -> "ForecastFrame":
        """Answer `due` with `forecast` (N, H, Q) float32, in the units of its contexts.

        float16 keeps 11 bits of the distance from the centre: 0.05 % of the width of a forecast.
        """
        flat = forecast.reshape(len(forecast), -1)
        low, high = flat.min(axis=1), flat.max(axis=1)
        center = (low / 2 + high / 2).astype(np.float32)
        # As in contexts: the largest distance is just below 2^15 scales, so that next to nothing is a
        # denormal number, which numpy converts 50 times as slowly.
        exponent = np.maximum(np.frexp(np.maximum(high - center, center - low))[1] - EXPONENT, SMALLEST)
        scale = np.ldexp(np.float32(1), exponent)
        quantile = ((forecast - center[:, None, None]) / scale[:, None, None]).astype("<f2")
        return cls(
            due.partition,
            due.block,
            due.forecaster,
            level,
            due.row,
            due.generation,
            due.origin,
            center,
            scale,
            np.ascontiguousarray(quantile.transpose(0, 2, 1)),
        )

    def encode(self) -> bytes:
        return pb.ForecastFrame(
            version=VERSION,
            partition=self.partition,
            block=self.block,
            forecaster=self.forecaster,
            horizon=self.quantile.shape[2],
            level=self.level.tobytes(),
            row=self.row.tobytes(),
            generation=self.generation.tobytes(),
            origin=self.origin.tobytes(),
            center=self.center.tobytes(),
            scale=self.scale.tobytes(),
            quantile=self.quantile.tobytes(),
        ).SerializeToString()

    @classmethod
    def decode(cls, record: bytes) -> "ForecastFrame":
        m = parse(pb.ForecastFrame, record, VERSION)
        row = column(m.row, "<u4", "rows")
        n = len(row)
        level = column(m.level, "<f4", "levels")
        shape = (n, len(level), m.horizon)
        return cls(
            m.partition,
            m.block,
            m.forecaster,
            level,
            row,
            column(m.generation, "<u4", "generations", n),
            column(m.origin, "<i8", "origins", n),
            column(m.center, "<f4", "centers", n),
            column(m.scale, "<f4", "scales", n),
            column(m.quantile, "<f2", "quantiles", n * len(level) * m.horizon).reshape(shape),
        )


@dataclass(frozen=True, slots=True)
class ScoreFrame:
    """Scores of one pipeline: N judged steps of S series. Or a census of them, and no steps.

    Attributes:
        timestamp_ms: (N,) int64, the end of the step that is judged.
        score: (N,) float32, 1.0 is the edge of normal. NaN in warm-up: of groups only.
        value: (N,) float64.
        expected: (N, 3) float64: median, lower and upper edge of normal; NaN where unknown.
        reason: (N,) uint8, core/scoring/reason.py.
        flags: (N,) uint8, ScoreFlag.
        closed_ms: wall clock when the steps closed.
        of_groups: the series are groups, and the values what share of their series is in an episode.
    """

    pipeline: str
    step_ms: int
    series: SeriesColumn
    row: NDArray[np.uint32]
    timestamp_ms: NDArray[np.int64]
    score: NDArray[np.float32]
    value: NDArray[np.float64]
    expected: NDArray[np.float64]
    reason: NDArray[np.uint8]
    flags: NDArray[np.uint8]
    closed_ms: int
    census: Census | None = None
    of_groups: bool = False

    @classmethod
    def of_census(cls, pipeline: str, step_ms: int, census: Census, closed_ms: int) -> "ScoreFrame":
        return cls(
            pipeline,
            step_ms,
            SeriesColumn.of([]),
            row=np.zeros(0, np.uint32),
            timestamp_ms=np.zeros(0, np.int64),
            score=np.zeros(0, np.float32),
            value=np.zeros(0),
            expected=np.zeros((0, 3)),
            reason=np.zeros(0, np.uint8),
            flags=np.zeros(0, np.uint8),
            closed_ms=closed_ms,
            census=census,
        )

    def take(self, rows: NDArray[np.int64]) -> "ScoreFrame":
        """The same for some of the steps, with the labels of their series alone."""
        used, row = np.unique(self.row[rows], return_inverse=True)
        blocks = [self.series.block(i) for i in used.tolist()]
        return replace(
            self,
            series=SeriesColumn.of(blocks, self.series.kind[used]),
            row=row.astype(np.uint32),
            timestamp_ms=self.timestamp_ms[rows],
            score=self.score[rows],
            value=self.value[rows],
            expected=self.expected[rows],
            reason=self.reason[rows],
            flags=self.flags[rows],
        )

    def records(self, compress: bool = False) -> Iterator[bytes]:
        """The frame as one record, or as several where its labels are too long for one."""
        record = self.encode(compress)
        n = len(self.row)
        if len(record) <= MOST_BYTES or n <= 1:
            yield record
            return
        for half in np.split(np.arange(n), [n // 2]):
            yield from self.take(half).records(compress)

    def encode(self, compress: bool = False) -> bytes:
        return pb.ScoreFrame(
            version=VERSION,
            pipeline=self.pipeline,
            step_ms=self.step_ms,
            series=self.series.to_pb(compress),
            row=self.row.tobytes(),
            timestamp_ms=self.timestamp_ms.tobytes(),
            score=self.score.tobytes(),
            value=self.value.tobytes(),
            expected=self.expected.tobytes(),
            reason=self.reason.tobytes(),
            flags=self.flags.tobytes(),
            closed_ms=self.closed_ms,
            census=None if self.census is None else self.census.to_pb(),
            of_groups=self.of_groups,
        ).SerializeToString()

    @classmethod
    def decode(cls, record: bytes) -> "ScoreFrame":
        m = parse(pb.ScoreFrame, record, VERSION)
        series = SeriesColumn.from_pb(m.series)
        row = index(m.row, len(series))
        n = len(row)
        return cls(
            m.pipeline,
            m.step_ms,
            series,
            row,
            column(m.timestamp_ms, "<i8", "timestamps", n),
            column(m.score, "<f4", "scores", n),
            column(m.value, "<f8", "values", n),
            column(m.expected, "<f8", "expected", n * 3).reshape(n, 3),
            column(m.reason, "u1", "reasons", n),
            column(m.flags, "u1", "flags", n),
            m.closed_ms,
            Census.from_pb(m.census) if m.HasField("census") else None,
            m.of_groups,
        )
