"""Compiled loops against their numpy twins."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openanomaly.core import ids_compiled, kernels, requests_compiled
from openanomaly.core.idtable import IdTable
from openanomaly.core.series import encode_labels, ids_of
from parts.part import missing

LABELS = st.lists(st.tuples(st.text(max_size=9), st.text(max_size=300)), max_size=4)
BLOCKS = st.lists(LABELS.map(encode_labels), unique=True, max_size=40)


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    kernels.warm_up()
    assert kernels.settled()
    if not kernels.ready():
        missing("numba", "uv sync --all-extras")


def request(blocks: list[bytes]) -> bytes:
    """A 1.0 request with one sample a series; a value of 0 is left out, as senders do."""
    out = b""
    for i, block in enumerate(blocks):
        time = (1 << 40) + i
        number = bytes((time >> 7 * k & 0x7F) | (0x80 if k < 5 else 0) for k in range(6))
        sample = b"\x09" + np.float64(i).tobytes() if i else b""
        sample += b"\x10" + number
        series = block + b"\x12" + bytes([len(sample)]) + sample
        size, length = len(series), b""
        while size > 0x7F:
            length += bytes([size & 0x7F | 0x80])
            size >>= 7
        out += b"\x0a" + length + bytes([size]) + series
    return out


@given(BLOCKS)
def test_series_are_told_apart_by_their_bytes_alone(blocks: list[bytes]) -> None:
    found = requests_compiled.read_1(request(blocks), 100)
    again = requests_compiled.read_1(bytearray(request(blocks[::-1])), 100)
    assert found is not None
    assert again is not None
    start, cut, _, raw, timestamp_ms, value = found
    assert [request(blocks)[a:b] for a, b in zip(start, cut, strict=True)] == blocks
    assert timestamp_ms.tolist() == [(1 << 40) + i for i in range(len(blocks))]
    assert value.tolist() == list(range(len(blocks)))
    assert again[3].tolist() == raw.tolist()[::-1]
    assert len({tuple(r) for r in raw.tolist()}) == len(blocks)


def test_one_bit_changes_every_part_of_a_hash() -> None:
    block = encode_labels((("name", "v" * 100),))
    changed = [bytearray(block) for _ in range(8 * 100)]
    for i, each in enumerate(changed):
        each[-1 - i // 8] ^= 1 << i % 8
    found = requests_compiled.read_1(request([block, *map(bytes, changed)]), 1000)
    assert found is not None
    raw = found[3]
    flipped = np.unpackbits((raw[1:] ^ raw[0]).view(np.uint8), axis=1)
    assert flipped.mean() == pytest.approx(0.5, abs=0.01)
    assert flipped.mean(axis=0).min() > 0.4
    assert flipped.mean(axis=1).min() > 0.25


@given(BLOCKS, st.integers(1, 200), st.sampled_from([b"", b"\x1a\x00", b"\x0a", b"\x0a\xff\xff", b"\x00"]))
def test_what_is_not_whole_is_left_to_the_full_schema(blocks: list[bytes], cut: int, tail: bytes) -> None:
    body = request(blocks)
    assert requests_compiled.read_1(body + tail, 100) is None or not tail
    broken = requests_compiled.read_1(body[:-cut], 100)
    whole = [i for i in range(len(blocks) + 1) if request(blocks[:i]) == body[:-cut]]
    assert (broken is not None) == bool(whole)
    assert requests_compiled.read_1(body, len(blocks) - 1) is None


@given(st.lists(st.integers(0, 60), max_size=200), st.integers(0, 2**63))
def test_a_table_finds_the_same(numbers: list[int], salt: int) -> None:
    known = ids_of([str(i ^ salt).encode() for i in range(0, 60, 2)])
    table = IdTable(8)
    table.insert(known, np.arange(30, dtype=np.int32))
    table.remove(known[::7])
    asked = ids_of([str(i ^ salt).encode() for i in numbers])
    slot, found = table._probe(asked)
    expected = np.where(found, table._values[slot], -1)
    assert table.find(asked).tolist() == expected.tolist()


@given(st.lists(st.integers(0, 20), max_size=60))
def test_first_places(numbers: list[int]) -> None:
    found = ids_compiled.first_places(ids_of([str(i).encode() for i in numbers]))
    if len(set(numbers)) == len(numbers):
        assert found is None
    else:
        assert found is not None
        assert found.tolist() == [numbers.index(i) for i in numbers]


def test_records_are_taken_whole() -> None:
    dtype = np.dtype([("a", "<u8"), ("b", "<u4"), ("c", "<i4")])
    records = np.zeros(9, dtype)
    records["a"], records["b"], records["c"] = np.arange(9), np.arange(9) * 2, -np.arange(9)
    at = np.array([3, 0, 8, 3], np.int32)
    assert ids_compiled.take(records, at).tolist() == records[at].tolist()
