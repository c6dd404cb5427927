"""Snappy, with the size checked before a byte is unpacked."""

import cramjam

from openanomaly.errors import MalformedRequestError, RequestTooLargeError


def declared_bytes(body: bytes) -> int:
    """Unpacked size that a snappy block says it has.

    Raises:
        MalformedRequestError: the body does not start as a snappy block does.
    """
    size = shift = 0
    for byte in body[:5]:
        size |= (byte & 0x7F) << shift
        if byte < 0x80:
            if size >= 1 << 32:
                break
            return size
        shift += 7
    raise MalformedRequestError("cannot unpack write request: not a snappy block")


def check_unpacked(size: int, limit: int) -> None:
    """Refuse a request that would unpack to more than `limit` bytes."""
    if size > limit:
        raise RequestTooLargeError(
            f"cannot unpack write request: {size} bytes unpacked, limit {limit}; "
            "raise receiver.unpacked_limit_bytes (OPENANOMALY_RECEIVER_UNPACKED_LIMIT_BYTES)"
        )


def unpack(body: bytes, limit: int) -> bytearray:
    """The unpacked body of a request.

    Raises:
        RequestTooLargeError: it declares more than `limit` bytes.
        MalformedRequestError: it is not a whole snappy block.
    """
    size = declared_bytes(body)
    check_unpacked(size, limit)
    if size > 64 + len(body) * 64:
        # A snappy copy of 64 bytes takes two bytes at least: more cannot come out, so nothing is
        # allocated for a lie.
        raise MalformedRequestError(
            f"cannot unpack write request: {len(body)} bytes cannot hold the {size} that they declare"
        )
    out = bytearray(size)
    try:
        written = cramjam.snappy.decompress_raw_into(body, out)
    except cramjam.DecompressionError as exc:
        raise MalformedRequestError(f"cannot unpack write request: {exc}") from exc
    if written != size:
        raise MalformedRequestError(f"cannot unpack write request: {written} bytes for {size} declared")
    return out
