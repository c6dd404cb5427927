"""Request bodies as a broken sender, a broken network or an enemy would make them, from valid ones.

Half are mutated before compression, so that they reach the protobuf decoders, half after it, so that
most of them end in snappy. Equal seeds give equal bodies.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import cramjam

from messages import Series, named, packed, v1, v2

GOLDEN = Path(__file__).parents[2] / "golden"
SENDERS = {"prometheus-2": 1, "prometheus-3": 1, "prometheus-3-v2": 2, "vmagent": 1}
_NOW_MS = 1_700_000_000_000
_LONGEST = 16_384
"""Bodies stay small: a mutation that doubles one is not applied beyond it."""


class Body(NamedTuple):
    """What is sent, and the version of the protocol that its headers name."""

    version: int
    packed: bytes


class Seed(NamedTuple):
    """A valid request."""

    version: int
    raw: bytes
    packed: bytes


def seeds() -> tuple[list[Seed], list[Seed]]:
    """Small ones made here, and what real senders sent."""
    raw = [(1, v1(series)) for series in _small()] + [(2, v2(series)) for series in _small()]
    raw.append((1, v1(_small()[0], [("up", 2), ("requests_total", 1), ("latency", 3)])))
    small = [Seed(version, body, packed(body)) for version, body in raw]
    real = []
    for sender, version in SENDERS.items():
        for request in json.loads((GOLDEN / sender / "capture.json").read_text())["requests"]:
            body = (GOLDEN / sender / request["file"]).read_bytes()
            real.append(Seed(version, bytes(cramjam.snappy.decompress_raw(body)), body))
    # Long captures would make a million bodies a question of bandwidth.
    return small, [seed for seed in real if len(seed.raw) <= _LONGEST]


def _small() -> list[list[Series]]:
    up = named("up", instance="a:1", job="node")
    histogram = {
        "count_int": 3,
        "sum": 1.5,
        "schema": 3,
        "zero_threshold": 1e-128,
        "positive_spans": [(0, 2), (1, 1)],
        "positive_deltas": [1, 0, 0],
        "timestamp": _NOW_MS,
    }
    return [
        [Series(up, [(_NOW_MS, 1.0)])],
        [Series(up, [(_NOW_MS, 1.0)], kind=2), Series(named("down"), [(_NOW_MS, 0.0)], kind=1)],
        [Series(named("requests_total", code=str(i)), [(_NOW_MS + i, float(i))], kind=1) for i in range(5)],
        [Series(up, [(_NOW_MS + i, math.nan) for i in range(4)], start_ms=_NOW_MS - 1000)],
        [Series(named("latency", ü="世界"), [], [up], [histogram], kind=3)],
        [Series(up, [(_NOW_MS, -math.inf)], [named("trace", id="1")], [histogram], 4, 5)],
        [Series(named("long", value="x" * 300), [(1, 5e-324), (-(2**63), 1e308)])],
        [Series((), [(_NOW_MS, 1.0)]), Series(up)],
    ]


def mutated(seed: int) -> Iterator[Body]:
    """Bodies without end."""
    random = Random(seed)
    small, real = seeds()
    while True:
        for before in (True, False):
            few = small if random.random() < 0.8 else real
            chosen, other = random.choice(few), random.choice(few)
            # A 1.0 body may well come with the headers of 2.0, and the other way round.
            version = chosen.version if random.random() < 0.97 else 3 - chosen.version
            if before:
                body = packed(mutate(random, chosen.raw, other.raw))
            else:
                body = mutate(random, chosen.packed, other.packed, head=True)
            yield Body(version, body)


def mutate(random: Random, body: bytes, other: bytes, head: bool = False) -> bytes:
    """`body` after one to four mutations, some with bytes of `other`.

    `head`: it is a snappy block; the size in its head may be changed too.
    """
    data = bytearray(body)
    if head and random.random() < 0.15:
        _declare(random, data)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        random.choice(_MUTATIONS)(random, data, other)
    return bytes(data)


def _declare(random: Random, data: bytearray) -> None:
    """Another unpacked size than there is."""
    size = 0
    while size < len(data) - 1 and data[size] >= 0x80:
        size += 1
    data[: size + 1] = _number(random)


def _flip(random: Random, data: bytearray, other: bytes) -> None:
    for _ in range(random.choice((1, 1, 2, 8))):
        if data:
            data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def _overwrite(random: Random, data: bytearray, other: bytes) -> None:
    at, size = _slice(random, data, 8)
    data[at : at + size] = random.randbytes(size) if random.random() < 0.5 else random.choice(_FILL) * size


def _letter(random: Random, data: bytearray, other: bytes) -> None:
    """Another name or value, most of the time: the message stays whole, the series is a new one."""
    places = [i for i in range(min(len(data), 400)) if 0x61 <= data[i] <= 0x7A]
    if places:
        data[random.choice(places)] = random.randrange(128)


def _truncate(random: Random, data: bytearray, other: bytes) -> None:
    del data[random.randint(0, len(data)) :]


def _insert(random: Random, data: bytearray, other: bytes) -> None:
    at = random.randint(0, len(data))
    data[at:at] = random.randbytes(random.randint(1, 8))


def _remove(random: Random, data: bytearray, other: bytes) -> None:
    at, size = _slice(random, data, 32)
    del data[at : at + size]


def _double(random: Random, data: bytearray, other: bytes) -> None:
    if len(data) < _LONGEST:
        at, size = _slice(random, data, len(data))
        data[at:at] = data[at : at + size] * random.choice((1, 1, 1, 7))


def _splice(random: Random, data: bytearray, other: bytes) -> None:
    data[random.randint(0, len(data)) :] = other[random.randint(0, len(other)) :]


def _varint(random: Random, data: bytearray, other: bytes) -> None:
    at = random.randint(0, len(data))
    data[at : at + random.choice((0, 1, 1, 5, 6, 9))] = _number(random)


def _length(random: Random, data: bytearray, other: bytes) -> None:
    """The length of a field of bytes, if there is one: off by one, or anything."""
    places = [i for i in range(min(len(data) - 1, 400)) if data[i] in _TAGS]
    if places:
        at = random.choice(places) + 1
        if random.random() < 0.6:
            data[at] = (data[at] + random.choice((-2, -1, 1, 2))) & 0xFF
        else:
            data[at : at + 1] = _number(random)


_MUTATIONS: Sequence[Callable[[Random, bytearray, bytes], None]] = (
    _flip,
    _flip,
    _letter,
    _letter,
    _overwrite,
    _truncate,
    _insert,
    _remove,
    _double,
    _splice,
    _varint,
    _length,
    _length,
)
_FILL = (b"\0", b"\xff", b"\x7f", b"\x80")
_TAGS = frozenset(b"\x0a\x12\x1a\x22\x2a\x4a\x5a\x62\x72\x82")
"""Fields of both messages that have a length."""
_EDGES = tuple(2**bits + off for bits in (0, 7, 8, 14, 16, 28, 31, 32, 35, 42, 63, 64) for off in (-1, 0, 1))


def _slice(random: Random, data: bytearray, longest: int) -> tuple[int, int]:
    at = random.randint(0, len(data))
    return at, random.randint(0, max(0, min(longest, len(data) - at)))


def _number(random: Random) -> bytes:
    """A varint at an edge of what its readers hold; some do not end within ten bytes."""
    if random.random() < 0.1:
        return b"\xff" * random.choice((9, 10, 11, 20)) + random.choice((b"", b"\x01", b"\x7f"))
    number, out = random.choice(_EDGES), bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])
