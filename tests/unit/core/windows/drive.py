"""Frames for a partition, and what its records say."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from openanomaly.core.frames import SampleFrame
from openanomaly.core.pipelines.pipeline import Pipeline, ScoreOptions
from openanomaly.core.series import canonical, encode_labels
from openanomaly.core.series_column import SeriesColumn
from openanomaly.core.windows import records
from openanomaly.core.windows.admission import Budget
from openanomaly.core.windows.block import Block
from openanomaly.core.windows.output import Output
from openanomaly.core.windows.partition import Partition
from openanomaly.core.windows.plan import plan
from openanomaly.core.windows.rows import RING_PAGE
from openanomaly.pb.openanomaly.v1 import changelog_pb2 as pb

Row = tuple[str, int, float]
"""A sample: name of its series, timestamp, value."""


def pipeline(name: str = "p", **options: object) -> Pipeline:
    """A pipeline that scores soon, on short windows."""
    given = {
        "step_s": 10, "context": 64, "min_context": 2, "horizon": 8, "forecast_every": 4,
        "model": "statistical", "score": ScoreOptions(warmup=3, block=12), "group_by": (),
    }  # fmt: skip
    return Pipeline(name=name, **{**given, **options})


def fresh(*pipelines: Pipeline, limit: int = 10_000) -> Partition:
    """A partition before its recovery."""
    return Partition(0, plan(pipelines or (pipeline(),)), Budget(limit))


def partition(*pipelines: Pipeline, limit: int = 10_000) -> Partition:
    out = fresh(*pipelines, limit=limit)
    out.start()
    return out


def label_block(name: str) -> bytes:
    """Of `name`, or of `name@job`."""
    name, _, job = name.partition("@")
    return encode_labels(canonical([("__name__", name), ("job", job)]))


def frame(samples: Iterable[Row], received_ms: int = 0) -> SampleFrame:
    """The samples in their order; each series once."""
    samples = list(samples)
    names = list(dict.fromkeys(name for name, _, _ in samples))
    place = {name: i for i, name in enumerate(names)}
    return SampleFrame(
        SeriesColumn.of([label_block(name) for name in names]),
        np.array([place[name] for name, _, _ in samples], np.uint32),
        np.array([t for _, t, _ in samples], np.int64),
        np.array([v for _, _, v in samples], np.float64),
        received_ms,
    )


def unlabelled(frame: SampleFrame) -> SampleFrame:
    """The frame as it comes once the labels have been told."""
    offset = np.zeros_like(frame.series.label_offset)
    bare = replace(frame, series=replace(frame.series, label_offset=offset, plain=b""))
    return SampleFrame.decode(bare.encode())


def steps(block: Block, output: Output) -> list[tuple[int, int, float]]:
    """(row, bucket, value) of every step in the ring records of `output`, in their order."""
    out = []
    for record in output.ring:
        kind, uid, _, _ = records.read_key(record.key)
        if uid != block.uid:
            continue
        if kind == records.PATCH:
            m = pb.Patch.FromString(record.value)
            rows, buckets = np.frombuffer(m.row, "<u4"), np.frombuffer(m.bucket, "<i8")
            value = np.frombuffer(m.value, "<f4")
        else:
            m = pb.Column.FromString(record.value)
            value = np.frombuffer(m.value, "<f4")
            rows = np.arange(value.size)
            if m.moved:
                rows = np.flatnonzero(np.unpackbits(np.frombuffer(m.moved, "u1"), count=value.size))
                value = value[rows]
            buckets = np.full(rows.size, m.bucket)
            rows = rows + m.page * RING_PAGE
        values = value.astype(np.float64) + block.catalogue.base[rows]
        out += list(zip(rows.tolist(), buckets.tolist(), values.tolist(), strict=True))
    return out


def row_of(block: Block, name: str) -> int:
    return int(block.catalogue.find(SeriesColumn.of([label_block(name)]).ids)[0])


def window(block: Block, name: str) -> list[float]:
    """The window of a series up to the newest step that closed, in absolute units."""
    rows = np.array([row_of(block, name)])
    assert rows[0] >= 0, name
    end = block.state["closed"][rows]
    data = block.ring.windows(rows, end, block.catalogue.born[rows])[0]
    return (data.astype(np.float64) + block.catalogue.base[rows[0]]).tolist()


def dropped(counts: dict[str, int]) -> int:
    reasons: Sequence[str] = (
        "duplicate", "out_of_order", "late", "timestamp", "stale", "not_finite", "counter_start",
        "counter_reset", "max_series", "unselected", "unlabelled", "replayed",
    )  # fmt: skip
    return sum(counts[r] for r in reasons)
