"""Ids of series in compiled loops; twins in idtable.py, gather.py and identity.py."""

import numpy as np
from numpy.typing import NDArray

from openanomaly.core import kernels
from openanomaly.core.kernels import jit

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]


@jit()
def _probe(table: U64, ids: U64, out: NDArray[np.int32]) -> None:
    mask = np.uint64(len(table) - 1)
    for i in range(len(ids)):
        a, b = ids[i, 0], ids[i, 1]
        slot = (a >> np.uint64(20)) & mask
        while True:
            value = np.int64(table[slot, 2])
            if value == -1:
                out[i] = -1
                break
            if value >= 0 and table[slot, 0] == a and table[slot, 1] == b:
                out[i] = value
                break
            slot = (slot + np.uint64(1)) & mask


@jit()
def _find(table: U64, known: U64, ids: U64, out: NDArray[np.int32]) -> None:
    """As `_probe`, of ids whose values are their places in `known`: one that follows the id before it
    there as it does here is found without a look into the table, which costs a cache miss."""
    mask = np.uint64(len(table) - 1)
    at = np.int64(-1)
    for i in range(len(ids)):
        a, b = ids[i, 0], ids[i, 1]
        at += np.int64(1)
        if at < len(known) and known[at, 0] == a and known[at, 1] == b:
            out[i] = at
            continue
        slot = (a >> np.uint64(20)) & mask
        while True:
            value = np.int64(table[slot, 2])
            if value == -1:
                at = np.int64(-1)
                out[i] = at
                break
            if value >= 0 and table[slot, 0] == a and table[slot, 1] == b:
                out[i] = at = value
                break
            slot = (slot + np.uint64(1)) & mask


@jit()
def _first_places(ids: U64, table: I64, out: I64) -> int:
    """Of each id the first place where it stands; how many are no first ones. `table` is all -1."""
    mask = np.uint64(len(table) - 1)
    repeated = 0
    for i in range(len(ids)):
        slot = (ids[i, 0] >> np.uint64(20)) & mask
        while True:
            first = table[slot]
            if first < 0:
                table[slot] = out[i] = i
                break
            if ids[first, 0] == ids[i, 0] and ids[first, 1] == ids[i, 1]:
                out[i] = first
                repeated += 1
                break
            slot = (slot + np.uint64(1)) & mask
    return repeated


@jit()
def _take(records: U64, at: NDArray[np.int32], out: U64) -> None:
    for i in range(len(at)):
        for k in range(records.shape[1]):
            out[i, k] = records[at[i], k]


def probe(table: U64, ids: U64) -> NDArray[np.int32]:
    """(S,) values of `ids` in the records of an IdTable, -1 where there is none."""
    out = np.empty(len(ids), np.int32)
    _probe(table, np.ascontiguousarray(ids), out)
    return out


def find(table: U64, known: U64, ids: U64) -> NDArray[np.int32]:
    """`probe` of a table whose values are the places of its ids in `known`."""
    out = np.empty(len(ids), np.int32)
    _find(table, known, np.ascontiguousarray(ids), out)
    return out


def first_places(ids: U64) -> I64 | None:
    """(S,) where each of `ids` stands first; None if each stands there once."""
    out = np.empty(len(ids), np.int64)
    table = np.full(1 << (2 * len(ids)).bit_length(), -1)
    return out if _first_places(np.ascontiguousarray(ids), table, out) else None


def take(records: NDArray[np.void], at: NDArray[np.int32]) -> NDArray[np.void]:
    """`records[at]` of records of whole words, which numpy copies byte by byte."""
    out = np.empty(len(at), records.dtype)
    words = records.dtype.itemsize // 8
    _take(records.view(np.uint64).reshape(-1, words), at, out.view(np.uint64).reshape(-1, words))
    return out


@kernels.compiles
def _compile() -> None:
    for ids in (np.zeros((1, 2), np.uint64), np.frombuffer(bytes(16), np.uint64).reshape(1, 2)):
        probe(np.full((16, 3), -1).view(np.uint64), ids)
        find(np.full((16, 3), -1).view(np.uint64), np.zeros((1, 2), np.uint64), ids)
        first_places(ids)
    take(np.zeros(1, "V16"), np.zeros(1, np.int32))
