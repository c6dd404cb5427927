"""The production path in one object, without a broker: samples in, scores out.

What the roles do with each other's records is done here by calls: due frames are answered at once, so
a forecast made at the close of a step is in force from the next step on.
"""

import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import cramjam
import numpy as np
import xxhash

from openanomaly.core.frames import ForecastFrame, SampleFrame, ScoreFrame
from openanomaly.core.group_frames import GroupCounts
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.ports.model_engine import ModelEngine
from openanomaly.core.services.answer import MAX_BATCH, Answerer, Watch
from openanomaly.core.services.shares import of_one
from openanomaly.core.windows import migrate, records
from openanomaly.core.windows.admission import Budget
from openanomaly.core.windows.output import Output
from openanomaly.core.windows.partition import Partition
from openanomaly.core.windows.plan import plan
from openanomaly.core.windows.records import Position, Record
from openanomaly.core.windows.rows import STATE_PAGE
from openanomaly.errors import MalformedFrameError, UnknownVersionError

VERSION = 1
"""Of what `dump` writes, around records that have versions of their own."""
_MAGIC = b"openanomaly windows\n"
_HEAD = struct.Struct("<IQq")  # version, digest of what follows, time of the last tick
_SIZES = struct.Struct("<BII")  # kind of entry, bytes of its key and of its value
_STATE, _FORECAST = range(2)


class LocalScoring:
    """Windows, forecasts and scores of the series of some pipelines, in this process.

    Attributes:
        partition: what is known of the series; its `counts` say what became of samples and steps.
        forecasts: what became of the contexts that were due.
    """

    def __init__(
        self,
        pipelines: Iterable[Pipeline],
        engines: Mapping[str, ModelEngine],
        max_series: int,
        max_batch: int = MAX_BATCH,
        watch: Watch | None = None,
    ) -> None:
        """
        Args:
            engines: by what pipelines call their models. A model that is not there forecasts nothing.
            watch: who hears of batches.

        Raises:
            ConfigError: too many pipelines share their windows.
        """
        self._plans = plan(pipelines)
        self._max_series = max_series
        self.forecasts = Answerer(engines, max_batch, watch)
        self.partition = self._empty()
        self.partition.start()
        self._counts: list[GroupCounts] = []

    def _empty(self) -> Partition:
        return Partition(0, self._plans, Budget(self._max_series))

    @property
    def counts(self) -> Counter[str]:
        """Outcomes since the start: of samples and steps by name, of contexts as `forecast_<reason>`."""
        failed = {f"forecast_{reason}": rows for reason, rows in self.forecasts.failed.items()}
        return self.partition.counts + Counter(failed)

    def put(self, frame: SampleFrame, now_ms: int) -> list[ScoreFrame]:
        """Take samples: scores of the steps that they close, those of a series in their order.

        However samples are divided among frames, the scores are the same to the bit.

        Raises:
            MalformedFrameError: labels of a new series cannot be read.
        """
        scores: list[ScoreFrame] = []
        for part in one_each(frame):
            scores += self._answer(self.partition.put(part, self.partition.position.samples, now_ms))
        return scores

    def tick(self, now_ms: int) -> list[ScoreFrame]:
        """Close what is due by the wall clock, and judge the shares of groups as of then.

        What closes later of a step has no part in them: callers tick when nothing is to come.
        """
        scores = self._answer(self.partition.tick(now_ms))
        counts, self._counts = self._counts + self.partition.rest_of_groups(), []
        for frame in of_one(counts, now_ms):
            scores += self.put(frame, now_ms)
        return scores

    def evict(self, now_ms: int, ttl_ms: int) -> None:
        """Forget series that have been idle for `ttl_ms`."""
        self.partition.evict(now_ms, ttl_ms)

    def _answer(self, out: Output) -> list[ScoreFrame]:
        if out.due:
            for frame in self.forecasts.answer(out.due):
                self._take(frame)
        self._counts += out.groups.counts
        return out.scores

    def _take(self, frame: ForecastFrame) -> None:
        # Not `Partition.forecast`: it notes offsets for checkpoints, and there is no log to go back to.
        block = self.partition.blocks.get(frame.block)
        if block is not None:
            block.counts["forecasts"] += block.forecast(frame, 0)

    # -- over a restart ------------------------------------------------------------------------

    def dump(self) -> bytes:
        """All that is known, as the records that a changelog would have, and the forecasts in force."""
        pieces: list[bytes] = []
        for record in self._records():
            pieces += [_SIZES.pack(_STATE, len(record.key), len(record.value)), *record]
        for frame in migrate.forecast_frames(self.partition):
            value = frame.encode()
            pieces += [_SIZES.pack(_FORECAST, 0, len(value)), value]
        body = bytes(cramjam.zstd.compress(b"".join(pieces), level=1))
        head = _HEAD.pack(VERSION, xxhash.xxh3_64_intdigest(body), self.partition.position.tick_ms)
        return _MAGIC + head + body

    def _records(self) -> Iterator[Record]:
        for block in self.partition.blocks.values():
            for page, slot, value in block.catalogue.all_records():
                yield Record(records.key(records.CATALOGUE, block.uid, page, slot), value)
        yield from migrate.ring_records(self.partition)
        for block in self.partition.blocks.values():
            pages = -(-block.rows // STATE_PAGE)
            block.touched[:pages] = block.touched_cold[:pages] = True
        yield from migrate.state_records(self.partition)

    def load(self, dumped: bytes) -> None:
        """Go on from a dump. What it has of pipelines that are not defined any more is left out.

        Raises:
            MalformedFrameError: it is no dump, or not all of one. Nothing has changed.
            UnknownVersionError: a newer release wrote it.
        """
        tick_ms, entries = _read(dumped)
        partition = self._empty()
        forecasts: list[ForecastFrame] = []
        for kind, key, value in entries:
            if kind == _STATE:
                partition.restore(key, value)
            else:
                forecasts.append(ForecastFrame.decode(value))
        partition.start()
        partition.marks.clear()  # there is no run to repeat
        partition.position = Position(0, 0, tick_ms)
        partition.emit = self.partition.emit
        self.partition = partition
        for frame in forecasts:
            self._take(frame)


def one_each(frame: SampleFrame) -> Iterator[SampleFrame]:
    """The frame as frames that have one sample of a series each: the first ones, the second ones, ...

    Each closes at most one step of a series, so that its forecast is there before the next step, and
    sums of a step have one order.
    """
    n = frame.row.size
    order = np.argsort(frame.row, kind="stable")
    row = frame.row[order]
    first = np.empty(n, bool)
    first[:1] = True
    np.not_equal(row[1:], row[:-1], out=first[1:])
    at = np.arange(n)
    rank = at - np.maximum.accumulate(np.where(first, at, 0))
    if not rank.any():
        if n:
            yield frame
        return
    by_rank = np.argsort(rank, kind="stable")
    for some in np.split(order[by_rank], np.flatnonzero(np.diff(rank[by_rank])) + 1):
        yield replace(
            frame, row=frame.row[some], timestamp_ms=frame.timestamp_ms[some], value=frame.value[some]
        )


def _read(dumped: bytes) -> tuple[int, list[tuple[int, bytes, bytes]]]:
    """Time of the last tick, and (kind, key, value) of each entry."""
    start = len(_MAGIC) + _HEAD.size
    if not dumped.startswith(_MAGIC) or len(dumped) < start:
        raise MalformedFrameError(f"{len(dumped)} bytes are no dump of windows")
    version, digest, tick_ms = _HEAD.unpack_from(dumped, len(_MAGIC))
    if version > VERSION:
        raise UnknownVersionError(f"a dump of version {version}, this release reads up to {VERSION}")
    if xxhash.xxh3_64_intdigest(dumped[start:]) != digest:
        raise MalformedFrameError("a dump of windows is damaged: its checksum does not fit")
    body = bytes(cramjam.zstd.decompress(dumped[start:]))
    out: list[tuple[int, bytes, bytes]] = []
    at = 0
    while at < len(body):
        kind, key, value = _SIZES.unpack_from(body, at)
        at += _SIZES.size
        out.append((kind, body[at : at + key], body[at + key : at + key + value]))
        at += key + value
    return tick_ms, out
