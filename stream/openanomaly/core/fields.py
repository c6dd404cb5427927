"""Fields of our records: columns as little-endian arrays, written by hand and read with checks."""

from typing import Any, Protocol, TypeVar

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from openanomaly.core.series import varint
from openanomaly.errors import MalformedFrameError, UnknownVersionError

MOST_BYTES = 900_000
"""No record that we write is longer: the broker takes it, and a dead letter keeps all of it."""
Bytes = bytes | NDArray[Any]
"""What may be written as a field of bytes."""


def fields_of(*fields: "tuple[int, Bytes]") -> list[Bytes]:
    """Pieces of a message: length-delimited fields by number, the empty ones left out."""
    out: list[Bytes] = []
    for number, data in fields:
        if size := len(data) if isinstance(data, bytes) else data.nbytes:
            out.append(bytes((number << 3 | 2,)) + varint(size))
            out.append(data if isinstance(data, bytes) else np.ascontiguousarray(data))
    return out


class _Versioned(Protocol):
    version: int

    def ParseFromString(self, serialized: bytes) -> int: ...  # noqa: N802 (protobuf's name)


M = TypeVar("M", bound=_Versioned)


def parse(message: type[M], record: bytes, version: int) -> M:
    """The message of a record written by this release or an older one."""
    m = message()
    try:
        m.ParseFromString(record)
    except DecodeError as exc:
        raise MalformedFrameError(f"not a {message.__name__}: {exc}") from exc
    if m.version > version:
        raise UnknownVersionError(
            f"{message.__name__} has version {m.version}, this release reads up to {version}"
        )
    if m.version < 1:
        raise MalformedFrameError(f"not a {message.__name__}: it has no version")
    return m


def version_of(record: bytes) -> int:
    """The version of a record without parsing it: all of ours begin with it. 0 if it does not."""
    if record[:1] != b"\x08":
        return 0
    version = 0
    for i, byte in enumerate(record[1:6]):
        version |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return version
    return 0


def column(data: bytes, dtype: str, what: str, length: int | None = None) -> NDArray[Any]:
    """A column of a message, checked against the length it must have."""
    size = np.dtype(dtype).itemsize
    if len(data) % size or (length is not None and len(data) != length * size):
        raise MalformedFrameError(f"{what}: {len(data)} bytes, expected {length} values of {size} bytes")
    return np.frombuffer(data, dtype)


def index(data: bytes, series: int) -> NDArray[np.uint32]:
    """A column of indices into the series of a frame."""
    row = column(data, "<u4", "rows")
    if row.size and row.max() >= series:
        raise MalformedFrameError(f"row {row.max()} of {series} series")
    return row
