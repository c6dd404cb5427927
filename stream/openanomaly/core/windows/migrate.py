"""Series of some partitions moved to another number of partitions: columns in, columns out, no I/O.

A partition that was restored and has repeated its run is what a worker would go on from. Its rows are
taken over by the partitions that their ids belong to now, where they get new places, and these are
written down as any worker would have written them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.fields import column, parse
from openanomaly.core.frames import ROW_BYTES, DueFrame, ForecastFrame, SampleFrame, ScoreFrame
from openanomaly.core.scoring import LEVELS
from openanomaly.core.series import Ids, partition_of
from openanomaly.core.series_column import SeriesColumn
from openanomaly.core.windows import records, state_pages
from openanomaly.core.windows.block import Block, Closing
from openanomaly.core.windows.catalogue import FREE
from openanomaly.core.windows.inputs import Inputs, Item, Tick
from openanomaly.core.windows.output import Output
from openanomaly.core.windows.partition import Partition
from openanomaly.core.windows.plan import BlockPlan
from openanomaly.core.windows.records import Position, Record
from openanomaly.core.windows.ring import Ring
from openanomaly.core.windows.rows import NEVER, RING_PAGE, Rows
from openanomaly.errors import MalformedFrameError
from openanomaly.pb.openanomaly.v1 import changelog_pb2 as pb

Topic = Literal["samples", "forecasts"]

GENERATION = 1
"""Of every row that is moved: a new partition has had no other owners."""
_NOWHERE = -1
_BEGIN = Position(0, 0, 0)
_FORECAST_BYTES = 512 << 10


class Repeat:
    """A restored partition on its way to the end of the run it repeats, as a worker's would be.

    It asks for one record after another. Behind the end nothing was shown to anyone; what some row state has
    already taken from there (a checkpoint may be torn) it does not take twice.
    """

    def __init__(self, partition: Partition) -> None:
        self.partition = partition
        self._inputs: Inputs[bytes | None] = Inputs()
        self._written_ms = 0
        self.end = max((mark.samples for mark in partition.marks), default=0)
        """Offset of the samples through which it goes."""

    def wants(self) -> Topic | None:
        """Of what the next record is needed; None at the end."""
        mark = self.partition.next_mark()
        if mark is None:
            return None
        return "forecasts" if self.partition.position.forecasts < mark.forecasts else "samples"

    def give(self, topic: Topic, offset: int, value: bytes | None, written_ms: int, now_ms: int) -> Output:
        """Take the record that was wanted; None for one to pass over. What it said then, once more."""
        waiting = self._inputs.samples if topic == "samples" else self._inputs.forecasts
        waiting.append(Item(offset, value))
        self._written_ms = written_ms
        return self.go_on(now_ms)

    def go_on(self, now_ms: int) -> Output:
        """What can be done without another record."""
        out = Output()
        while self.partition.next_mark() is not None or self._inputs.samples or self._inputs.forecasts:
            step = self._inputs.next(self.partition)
            if step is None:
                break
            out.add(self._take(*step, now_ms))
        return out

    def _take(self, topic: str, what: "Item[bytes | None] | Tick", now_ms: int) -> Output:
        if isinstance(what, Tick):
            return self.partition.tick(what.now_ms)
        try:
            if what.value is not None:
                if topic == "samples":
                    return self.partition.put(SampleFrame.decode(what.value), what.offset, now_ms)
                frame = ForecastFrame.decode(what.value)
                self.partition.forecast(frame, what.offset, self._written_ms)
                return Output()
        except MalformedFrameError:
            pass  # set aside by the worker that took it first
        self.partition.skip(topic, what.offset)
        return Output()

    def lacks(self, topic: Topic, now_ms: int) -> Output:
        """The log has no more of what is wanted: go on without."""
        mark = self.partition.next_mark()
        assert mark is not None, "something was wanted"
        self.partition.skip(topic, (mark.forecasts if topic == "forecasts" else mark.samples) - 1)
        return self.go_on(now_ms)


class Places:
    """Where the rows of one block went: (rows,) each, by their places before."""

    def __init__(self, block: Block) -> None:
        n = block.rows
        self.generation = block.catalogue.generation[:n].copy()
        self.partition = np.full(n, _NOWHERE, np.int32)
        self.row = np.zeros(n, np.uint32)


def move(source: Partition, target: Partition, partitions: int, places: Mapping[int, Places]) -> int:
    """Give rows of `target` to the series of `source` that belong there, with all that is known of them.

    Args:
        partitions: how many there will be.
        places: by block of `source`; where the rows went is noted here.

    Returns:
        How many rows that were.
    """
    moved = 0
    for uid, block in target.blocks.items():
        old = source.blocks[uid]
        live = old.catalogue.live_rows()
        rows = live[partition_of(old.catalogue.ids[live], partitions) == target.number]
        if rows.size:
            new = _adopt(block, old, rows)
            places[uid].partition[rows], places[uid].row[rows] = target.number, new
            moved += rows.size
    return moved


def _adopt(block: Block, old: Block, rows: Rows) -> Rows:
    """The rows of `block` that series have who had `rows` of `old`."""
    c = old.catalogue
    labels = [c.labels[row] for row in rows.tolist()]
    new = block.catalogue.admit(
        c.ids[rows], labels, c.kind[rows], c.born[rows], c.base[rows], block.ring.newest
    )
    block.grow()
    block.fresh(new, [scoring.members[rows] for scoring in old.scorings])
    block.ring.copy(new, old.ring, rows)
    block.state.copy(new, old.state, rows)
    for uid, bands in block.bands.items():
        bands.columns.copy(new, old.bands[uid].columns, rows)
    for mine, theirs in zip(block.scorings, old.scorings, strict=True):
        for name, array in mine.state.items():
            array[new] = theirs.state[name][rows]
    return new


# -- a partition as its records ------------------------------------------------------------------


def catalogue_records(partition: Partition) -> Iterator[Record]:
    """Who owns the rows."""
    for block in partition.blocks.values():
        yield from records.catalogue_records(block)


def ring_records(partition: Partition) -> Iterator[Record]:
    """The windows, as if their steps had just closed one after another."""
    for block in partition.blocks.values():
        yield from records.ring_records(block, closings(block), _BEGIN)


def state_records(partition: Partition) -> Iterator[Record]:
    """The row state, as of before the first input."""
    for block in partition.blocks.values():
        yield from state_pages.state_records(block, _BEGIN, sequence=1)


def closings(block: Block) -> Iterator[Closing]:
    """The windows of a block as steps that close one after another."""
    live = block.catalogue.live_rows()
    pages = np.flatnonzero(np.diff(live // RING_PAGE)) + 1
    for rows in np.split(live, pages):
        for some, bucket, value in steps(block.ring, rows, block.catalogue.born[rows]):
            yield Closing(some, bucket, value, [])


def steps(
    ring: Ring, rows: Rows, born: NDArray[np.int64]
) -> Iterator[tuple[Rows, NDArray[np.int64], NDArray[np.float32]]]:
    """(rows, bucket, value) of every step in the windows of `rows`; those of a row ascend."""
    newest = ring.newest[rows]
    oldest = np.maximum(np.maximum(born, ring.first[rows]), newest - ring.length + 1)
    written = (newest > NEVER) & (newest >= oldest)
    if not written.any():
        return
    rows, newest, oldest = rows[written], newest[written], oldest[written]
    slots = np.ascontiguousarray(ring.data[rows].T)  # a step is a run of memory
    # Rows whose windows meet go step by step of the clock: their steps are columns of a page. One that
    # has been silent for longer goes by its own.
    near = newest > newest.max() - ring.length
    together, apart = np.flatnonzero(near), np.flatnonzero(~near)
    for bucket in range(int(oldest[near].min()), int(newest.max()) + 1):
        at = together[(oldest[together] <= bucket) & (bucket <= newest[together])]
        value = slots[bucket % ring.slots, at]
        there = np.isfinite(value)
        if there.any():
            yield rows[at[there]], np.full(int(there.sum()), bucket), value[there]
    for back in range(ring.length - 1, -1, -1) if apart.size else ():
        own = newest[apart] - back
        value = slots[own % ring.slots, apart]
        there = np.isfinite(value) & (own >= oldest[apart])
        if there.any():
            yield rows[apart[there]], own[there], value[there]


def forecast_frames(partition: Partition) -> Iterator[ForecastFrame]:
    """The forecasts that are in force, as if they had just come."""
    for block in partition.blocks.values():
        live = block.catalogue.live_rows()
        for forecaster in block.plan.forecasters:
            c, horizon = block.bands[forecaster.uid].columns, forecaster.horizon
            origin = c["origin"][live]
            rows = live[(origin > NEVER) & (block.state["closed"][live] < origin + horizon)]
            size = max(1, _FORECAST_BYTES // (2 * horizon * len(LEVELS) + ROW_BYTES))
            for i in range(0, rows.size, size):
                some = rows[i : i + size]
                yield ForecastFrame(
                    partition=partition.number,
                    block=block.uid,
                    forecaster=forecaster.uid,
                    level=np.array(LEVELS, "<f4"),
                    row=some.astype("<u4"),
                    generation=block.catalogue.generation[some],
                    origin=c["origin"][some],
                    center=c["center"][some],
                    scale=c["scale"][some],
                    quantile=np.ascontiguousarray(c["quantile"][some].transpose(0, 2, 1)),
                )


# -- frames that nobody has read -----------------------------------------------------------------


def split_samples(frame: SampleFrame, partitions: int) -> Iterator[tuple[int, SampleFrame]]:
    """(partition, frame) for each partition that has series of the frame."""
    for number, used, at, place in _by_partition(frame.series.ids, frame.row, partitions):
        yield (
            number,
            replace(
                frame,
                series=_pick(frame.series, used),
                row=place,
                timestamp_ms=frame.timestamp_ms[at],
                value=frame.value[at],
            ),
        )


def split_scores(frame: ScoreFrame, partitions: int) -> Iterator[tuple[int, ScoreFrame]]:
    """The same for scores."""
    for number, used, at, place in _by_partition(frame.series.ids, frame.row, partitions):
        yield (
            number,
            replace(
                frame,
                series=_pick(frame.series, used),
                row=place,
                timestamp_ms=frame.timestamp_ms[at],
                score=frame.score[at],
                value=frame.value[at],
                expected=frame.expected[at],
                reason=frame.reason[at],
                flags=frame.flags[at],
            ),
        )


def _by_partition(
    ids: Ids, row: NDArray[np.uint32], partitions: int
) -> Iterator[tuple[int, Rows, Rows, NDArray[np.uint32]]]:
    """(partition, its series, positions of their rows, these rows among its series)."""
    number = partition_of(ids, partitions)
    for each in np.unique(number).tolist():
        used, at = np.flatnonzero(number == each), np.flatnonzero(number[row] == each)
        place = np.zeros(len(ids), np.uint32)
        place[used] = np.arange(used.size)
        yield each, used, at, place[row[at]]


def _pick(series: SeriesColumn, used: Rows) -> SeriesColumn:
    """Some of the series, each with its labels if it has them here."""
    offset = np.zeros(used.size + 1, np.uint32)
    blocks = [series.block(i) for i in used.tolist()] if series.label_offset[-1] else []
    if blocks:
        np.cumsum([len(block) for block in blocks], out=offset[1:])
    return SeriesColumn(series.ids[used], offset, b"".join(blocks), series.kind[used])


def split_due(frame: DueFrame, places: Places) -> Iterator[DueFrame]:
    """Contexts with the new places of their rows; those of former owners are left out."""
    known = np.flatnonzero(frame.row < len(places.row))
    row = frame.row[known]
    still = (places.partition[row] != _NOWHERE) & (places.generation[row] == frame.generation[known])
    known, row = known[still], row[still]
    number = places.partition[row]
    for each in np.unique(number).tolist():
        at = np.flatnonzero(number == each)
        yield replace(
            frame.take(known[at]),
            partition=each,
            row=places.row[row[at]],
            generation=np.full(at.size, GENERATION, np.uint32),
        )


# -- what is left behind -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stranger:
    """A catalogue page of a block that no pipeline asks for."""

    specification: str
    series: int

    @classmethod
    def of(cls, record: bytes) -> "Stranger":
        m = parse(pb.CataloguePage, record, records.VERSION)
        return cls(m.specification, int((column(m.born, "<i8", "born") != FREE).sum()))


def unknown_scorers(record: bytes, plan: BlockPlan) -> set[int]:
    """Pipelines whose scoring state is in a state page, and that the plan does not have."""
    m = parse(pb.StatePage, record, records.VERSION)
    return {c.owner for c in m.cold} - {0, *(p.uid for p in plan.pipelines)}
