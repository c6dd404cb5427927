"""Identity of a series: canonical labels, their 128-bit id, and the partition that follows from it.

A label block is the encoding of the labels of a remote-write 1.0 TimeSeries: for each label the
bytes `0a <length> 0a <length> <name> 12 <length> <value>`. It is canonical when names ascend, none
is repeated and no value is empty (an empty value means "no such label" in Prometheus).
"""

from collections.abc import Iterable, Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

from openanomaly.errors import MalformedRequestError

Labels = tuple[tuple[str, str], ...]
Ids = NDArray[np.uint64]
"""(S, 2) uint64: the 16 bytes of each id, little-endian."""


def series_id(block: bytes) -> bytes:
    """The 16-byte id of a canonical label block: its 128-bit xxh3."""
    return xxhash.xxh3_128_digest(block)


def ids_of(blocks: Iterable[bytes]) -> Ids:
    """Ids of canonical label blocks, in their order."""
    return np.frombuffer(b"".join(map(xxhash.xxh3_128_digest, blocks)), "<u8").reshape(-1, 2)


def partition_of(ids: Ids, partitions: int) -> NDArray[np.uint32]:
    """(S,) the partition each series belongs to."""
    return (ids[:, 0] % np.uint64(partitions)).astype(np.uint32)


def stagger_of(ids: Ids, every: int) -> NDArray[np.int64]:
    """(S,) numbers in [0, every) that spread series evenly, independent of their partition."""
    return (ids[:, 1] % np.uint64(every)).astype(np.int64)


def varint(value: int) -> bytes:
    """A length as protobuf writes it."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_labels(labels: Sequence[tuple[str, str]]) -> bytes:
    """The label block of `labels`, in their order."""
    out = []
    for name, value in labels:
        n, v = name.encode(), value.encode()
        size = len(n) + len(v) + 4
        if size < 0x80:  # as nearly all are: lengths of one byte
            out.append(b"\x0a%c\x0a%c%b\x12%c%b" % (size, len(n), n, len(v), v))
            continue
        body = b"\x0a" + varint(len(n)) + n + b"\x12" + varint(len(v)) + v
        out.append(b"\x0a" + varint(len(body)) + body)
    return b"".join(out)


def canonical(labels: Iterable[tuple[str, str]]) -> Labels:
    """`labels` sorted by name, empty values dropped.

    Raises:
        MalformedRequestError: a name is empty or repeated, or there is no label at all.
    """
    kept = sorted((name, value) for name, value in labels if value)
    for i, (name, _) in enumerate(kept):
        if not name:
            raise MalformedRequestError("a label has an empty name")
        if i and kept[i - 1][0] == name:
            raise MalformedRequestError(f"label {name!r} is repeated")
    if not kept:
        raise MalformedRequestError("a series has no labels")
    return tuple(kept)


def decode_labels(block: bytes) -> Labels:
    """The labels of a block, in its order.

    Raises:
        MalformedRequestError: the bytes are not a label block.
    """
    out = []
    at, end = 0, len(block)
    try:
        while at < end:
            at, stop = _header(block, at, 0x0A)
            name = value = b""
            while at < stop:
                tag = block[at]
                if tag not in (0x0A, 0x12):
                    raise ValueError(f"unexpected field tag {tag:#x}")
                at, close = _header(block, at, tag)
                if close > stop:
                    raise ValueError("a string ends behind its label")
                if tag == 0x0A:
                    name = block[at:close]
                else:
                    value = block[at:close]
                at = close
            out.append((name.decode(), value.decode()))
    except (IndexError, ValueError) as exc:
        raise MalformedRequestError(f"not a label block: {exc}") from exc
    return tuple(out)


def _header(block: bytes, at: int, tag: int) -> tuple[int, int]:
    """Start and end of the length-delimited field at `at`."""
    if block[at] != tag:
        raise ValueError(f"unexpected field tag {block[at]:#x}")
    length = shift = 0
    while True:
        at += 1
        byte = block[at]
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 28:
            raise ValueError("a length is too long")
    if at + 1 + length > len(block):
        raise ValueError("a field ends behind the block")
    return at + 1, at + 1 + length
