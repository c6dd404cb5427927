"""Samples whose labels went before: a partition knows its series by id."""

from dataclasses import replace

import numpy as np

from openanomaly.core.windows.partition import Partition
from unit.core.windows import drive

START_MS = 1_700_000_000_000


def counts(partition: Partition) -> list[dict[str, int]]:
    return [{k: n for k, n in b.counts.items() if n} for b in partition.blocks.values()]


def test_a_known_series_needs_no_labels() -> None:
    partition = drive.partition()
    partition.put(drive.frame([("a", START_MS, 1.0)]), 0, START_MS)
    partition.put(drive.unlabelled(drive.frame([("a", START_MS + 1000, 2.0)])), 1, START_MS)
    (block,) = partition.blocks.values()
    assert block.counts["accepted"] == 2
    assert block.counts["unlabelled"] == 0


def test_an_unknown_series_without_labels_is_counted_until_they_come() -> None:
    partition = drive.partition()
    for i in range(3):
        partition.put(drive.unlabelled(drive.frame([("a", START_MS + i, 1.0)])), i, START_MS)
    partition.put(drive.frame([("a", START_MS + 10, 1.0)]), 3, START_MS)
    partition.put(drive.unlabelled(drive.frame([("a", START_MS + 20, 1.0)])), 4, START_MS)
    (block,) = partition.blocks.values()
    assert (block.counts["in"], block.counts["accepted"], block.counts["unlabelled"]) == (5, 2, 3)


def test_a_frame_may_have_the_labels_of_some() -> None:
    partition = drive.partition()
    frame = drive.frame([("a", START_MS, 1.0), ("bb", START_MS, 2.0), ("c", START_MS, 3.0)])
    length = np.diff(frame.series.label_offset)
    length[1] = 0
    offset = np.concatenate([[0], np.cumsum(length)]).astype(np.uint32)
    plain = frame.series.block(0) + frame.series.block(2)
    partition.put(replace(frame, series=replace(frame.series, label_offset=offset, plain=plain)), 0, START_MS)
    (block,) = partition.blocks.values()
    assert (block.counts["admitted"], block.counts["unlabelled"]) == (2, 1)


def test_one_block_lends_its_labels_to_another() -> None:
    """After a restart blocks do not know which series they did not want; labels tell them again."""
    pipelines = drive.pipeline("all"), drive.pipeline("slow", step_s=30, selector='{__name__=~"b.*"}')
    first = drive.partition(*pipelines)
    records = first.put(drive.frame([("a", START_MS, 1.0), ("b", START_MS, 1.0)]), 0, START_MS).catalogue
    again = drive.fresh(*pipelines)
    for record in records:
        again.restore(record.key, record.value)
    again.start()
    again.put(
        drive.unlabelled(drive.frame([("a", START_MS + 1, 1.0), ("b", START_MS + 1, 1.0)])), 1, START_MS
    )
    assert [c.get("unlabelled", 0) for c in counts(again)] == [0, 0]
    assert [c["accepted"] for c in counts(again)] == [2, 1]
    assert counts(again)[1]["unselected"] == 1


def test_beyond_max_series_the_reason_is_max_series() -> None:
    partition = drive.partition(limit=1)
    partition.put(drive.frame([("a", START_MS, 1.0)]), 0, START_MS)
    partition.put(drive.unlabelled(drive.frame([("b", START_MS, 1.0)])), 1, START_MS)
    (block,) = partition.blocks.values()
    assert (block.counts["max_series"], block.counts["unlabelled"]) == (1, 0)
