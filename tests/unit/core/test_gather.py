"""Frames of several requests: the compiled way and numpy's give the same bytes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openanomaly.core import gather_compiled, kernels
from openanomaly.core.frames import SampleFrame
from openanomaly.core.gather import Cut, cut
from openanomaly.core.intake import Batch
from openanomaly.core.series import encode_labels, ids_of
from parts.part import missing

NOW_MS = 1_764_000_000_000


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    kernels.warm_up()
    if not kernels.ready():
        missing("numba", "uv sync --all-extras")


def batch_of(numbers: list[int], labelled: list[bool], partitions: int) -> Batch:
    """One sample of each of these series; the labels of some go along."""
    blocks = [encode_labels([("__name__", "m"), ("i", "x" * (i % 7) + str(i))]) for i in numbers]
    n = len(numbers)
    ids = ids_of(blocks).copy()
    told = [i for i in range(n) if labelled[i]]
    return Batch(
        ids,
        np.arange(n, dtype=np.int32),
        (ids[:, 0] % np.uint64(partitions)).astype(np.uint16),
        (ids[:, 1] % np.uint64(4)).astype(np.uint8),
        np.array(told, np.int64),
        [blocks[i] for i in told],
        np.arange(n, dtype=np.uint32),
        NOW_MS + np.arange(n, dtype=np.int64),
        np.arange(n) / 3,
        True,
    )


@st.composite
def batches(draw: st.DrawFn) -> list[Batch]:
    partitions = draw(st.sampled_from([1, 2, 16]))
    found = []
    for _ in range(draw(st.integers(1, 4))):
        numbers = draw(st.lists(st.integers(0, 200), unique=True, max_size=60))
        some = draw(st.sampled_from([[False], [True], [True, False, False]]))
        found.append(batch_of(numbers, (some * len(numbers))[: len(numbers)], partitions))
    return found


def by_numpy(found: list[Batch], limit_bytes: int, compress: bool) -> list[Cut]:
    return cut([replace(b, is_even=False) for b in found], limit_bytes, NOW_MS, compress)


@given(batches(), st.sampled_from([4096, 512 << 10]), st.booleans())
def test_both_ways_give_the_same_frames(found: list[Batch], limit_bytes: int, compress: bool) -> None:
    fast, plain = cut(found, limit_bytes, NOW_MS, compress), by_numpy(found, limit_bytes, compress)
    assert [(f.partition, f.record) for f in fast] == [(f.partition, f.record) for f in plain]
    for one, other in zip(fast, plain, strict=True):
        assert one.batches <= other.batches


def test_a_frame_tells_whose_samples_it_has() -> None:
    found = [
        batch_of([], [], 2),
        batch_of([1, 2], [False] * 2, 2),
        batch_of(list(range(3, 40)), [False] * 37, 2),
    ]
    for frame in cut(found, 512 << 10, NOW_MS):
        ids = SampleFrame.decode(bytes(frame.record)).series.ids.tolist()
        assert frame.batches == {i for i, b in enumerate(found) if any(x in ids for x in b.ids.tolist())}


def test_frames_of_usual_batches_are_written_by_the_compiled_loops() -> None:
    """Else the property above compares numpy with itself."""
    found = [batch_of(list(range(a, a + 500)), [i % 5 == 0 for i in range(500)], 16) for a in (0, 500)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("openanomaly.core.gather._gather", None)
        frames = cut(found, 512 << 10, NOW_MS, True)
    assert frames == by_numpy(found, 512 << 10, True)
    samples = sum(len(SampleFrame.decode(bytes(f.record)).row) for f in frames)
    assert (len(frames), samples) == (16, 1000)


def test_a_series_of_two_batches_is_once_in_a_frame() -> None:
    found = [batch_of([1, 2, 3], [True] * 3, 1), batch_of([3, 4], [False] * 2, 1)]
    [frame] = cut(found, 512 << 10, NOW_MS)
    decoded = SampleFrame.decode(bytes(frame.record))
    assert (len(decoded.series), decoded.row.tolist()) == (4, [0, 1, 2, 2, 3])
    assert frame.batches == {0, 1}


def test_a_frame_is_never_above_its_limit() -> None:
    many = batch_of(list(range(5000)), [True] * 5000, 1)
    for labelled in (many, replace(many, labelled=many.labelled[:0], blocks=[])):
        frames = cut([labelled], 20_000, NOW_MS)
        assert max(len(f.record) for f in frames) <= 20_000
        assert frames == by_numpy([labelled], 20_000, False)


def test_ids_that_differ_in_one_half_are_two_series() -> None:
    ids = np.array([[7 << 20, 1], [7 << 20, 2], [8 << 20, 2]], np.uint64)
    columns = np.zeros(3, np.uint16), np.zeros(3, np.uint8), np.arange(3), np.arange(3.0)
    assert gather_compiled.write([(ids, *columns)], 10, NOW_MS) is not None
    assert gather_compiled.write([(ids[[0, 1, 0]], *columns)], 10, NOW_MS) is None
    assert gather_compiled.write([(ids, *columns)], 2, NOW_MS) is None
