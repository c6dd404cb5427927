"""No changelog record is longer than the broker takes: what would be is written in parts."""

import random

import numpy as np
import pytest

from openanomaly.broker.topics import MAX_RECORD_BYTES
from openanomaly.core.fields import MOST_BYTES
from openanomaly.core.frames import SampleFrame
from openanomaly.core.series import encode_labels
from openanomaly.core.series_column import SeriesColumn
from openanomaly.core.windows import records
from openanomaly.core.windows.partition import Partition
from openanomaly.core.windows.plan import MOST_SHARED, plan
from openanomaly.core.windows.records import Record, read_key
from openanomaly.core.windows.rows import RING_PAGE, STATE_PAGE
from openanomaly.errors import ConfigError
from openanomaly.pb.openanomaly.v1 import changelog_pb2 as pb
from unit.core.windows import drive
from unit.core.windows.test_pages import columns

START_MS, STEP_MS = 1_700_000_000_000, 10_000
KEY_BYTES = 17


def long_labels(i: int, size: int) -> bytes:
    """A label block of about `size` bytes that no compression makes shorter."""
    noise = random.Random(i).randbytes(size // 2).hex()
    names = [("__name__", "m")] + [
        (f"l{at:06}", noise[at : at + 4096]) for at in range(0, len(noise), 4096) if noise[at : at + 4096]
    ]
    return encode_labels((*names, ("z", str(i))))


def samples(series: int, step: int, label_bytes: int = 0, first: int = 0) -> SampleFrame:
    """One sample of each series."""
    numbers = range(first, first + series)
    blocks = [long_labels(i, label_bytes) if label_bytes else drive.label_block(f"m{i}") for i in numbers]
    at = START_MS + step * STEP_MS
    return SampleFrame(
        SeriesColumn.of(blocks),
        np.arange(series, dtype=np.uint32),
        np.full(series, at, np.int64),
        np.random.default_rng(step).normal(10, 3, series),
        at,
    )


def written(partition: Partition, frames: list[SampleFrame]) -> list[Record]:
    """All records of a partition that takes frames and then saves its state, in their order."""
    found: list[Record] = []
    for i, frame in enumerate(frames):
        out = partition.put(frame, i, frame.received_ms)
        found += out.catalogue + out.ring
    return found + partition.checkpoint(START_MS).records


def check_sizes(found: list[Record]) -> None:
    longest = max(found, key=lambda r: len(r.value))
    assert len(longest.value) <= MOST_BYTES, read_key(longest.key)
    assert MOST_BYTES + KEY_BYTES < MAX_RECORD_BYTES - 32_000  # a dead letter keeps all of it, with its words


def restored(pipelines: list[object], found: list[Record]) -> Partition:
    again = drive.fresh(*pipelines, limit=100_000)  # type: ignore[arg-type]
    for record in found:
        again.restore(record.key, record.value)
    again.start()
    return again


@pytest.mark.parametrize(("pipelines", "series"), [(1, 2100), (3, 1500), (12, 1100), (MOST_SHARED, 1030)])
def test_state_of_many_pipelines_on_one_window_fits(pipelines: int, series: int) -> None:
    """Each has its lists of every row: three fill a record with a page."""
    watching = [drive.pipeline(f"p{i}") for i in range(pipelines)]
    assert len(plan(watching)) == 1
    source = drive.partition(*watching, limit=100_000)
    found = written(source, [samples(series, step) for step in range(4)])
    check_sizes(found)
    again = restored(list(watching), found)
    wanted = columns(source)
    for key, column in columns(again).items():
        np.testing.assert_array_equal(column, wanted[key], err_msg=str(key))
    (mine,), (theirs,) = again.blocks.values(), source.blocks.values()
    np.testing.assert_array_equal(mine.ring.data[:series], theirs.ring.data[:series])
    # A last page that is not full may be whole.
    versions = {read_key(r.key)[3] != 0: r.value[1] for r in found if read_key(r.key)[0] in (4, 5)}
    assert versions == ({False: 1} if pipelines == 1 else {False: 1, True: 2})


def test_more_pipelines_on_one_window_are_refused() -> None:
    watching = [drive.pipeline(f"p{i}") for i in range(MOST_SHARED + 1)]
    with pytest.raises(ConfigError, match=r"129 pipelines share one window step=10000ms .* at most 128 can"):
        plan(watching)


@pytest.mark.parametrize("pipelines", [1, 40])
def test_steps_of_whole_pages_and_of_stragglers_fit(pipelines: int) -> None:
    watching = [drive.pipeline(f"p{i}") for i in range(pipelines)]
    source = drive.partition(*watching, limit=100_000)
    few = [samples(RING_PAGE // 16, step, first=7) for step in (4, 5, 6)]
    found = written(source, [samples(RING_PAGE + 5, step) for step in range(4)] + few)
    check_sizes(found)
    kinds = {read_key(r.key)[0] for r in found}
    assert {records.COLUMN, records.PATCH} <= kinds
    scorers = {
        s.scorer for r in found if read_key(r.key)[0] == 1 for s in pb.Column.FromString(r.value).score
    }
    assert len(scorers) == pipelines
    (mine,), (theirs,) = restored(list(watching), found).blocks.values(), source.blocks.values()
    np.testing.assert_array_equal(mine.ring.data[: mine.rows], theirs.ring.data[: theirs.rows])


@pytest.mark.parametrize(
    ("series", "label_bytes"), [(1100, 2_000), (200, 20_000), (6, 327_000), (5, 490_000)]
)
def test_a_catalogue_of_the_longest_labels_fits(series: int, label_bytes: int) -> None:
    source = drive.partition(limit=100_000)
    found = written(source, [samples(series, step, label_bytes) for step in range(2)])
    check_sizes(found)
    assert any(read_key(r.key)[3] for r in found if read_key(r.key)[0] == records.CATALOGUE)
    (mine,), (theirs,) = restored([drive.pipeline()], found).blocks.values(), source.blocks.values()
    assert mine.catalogue.labels == theirs.catalogue.labels
    np.testing.assert_array_equal(mine.catalogue.ids[:series], theirs.catalogue.ids[:series])
    np.testing.assert_array_equal(mine.catalogue.generation, theirs.catalogue.generation)
    np.testing.assert_array_equal(mine.catalogue.born, theirs.catalogue.born)


def test_usual_pages_are_whole_and_of_the_first_version() -> None:
    """What an older release reads too."""
    source = drive.partition(limit=100_000)
    found = written(source, [samples(STATE_PAGE + 1, step) for step in range(3)])
    assert {r.value[:2] for r in found} == {b"\x08\x01"}
    assert {read_key(r.key)[3] for r in found if read_key(r.key)[0] > records.PATCH} == {0}
