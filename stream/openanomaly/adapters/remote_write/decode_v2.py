"""Remote-write 2.0: `io.prometheus.write.v2.Request` to columns."""

from typing import NamedTuple

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from openanomaly.adapters.remote_write import refs
from openanomaly.adapters.remote_write.columns import (
    COUNT_LIMIT,
    KINDS,
    Refused,
    Slices,
    WriteColumns,
    check_count,
    kind_of,
)
from openanomaly.adapters.remote_write.whole import Whole, check_parts, count_histograms, spread, text
from openanomaly.core import kernels, requests_compiled
from openanomaly.core.identity import Identities
from openanomaly.core.intake import Numbered
from openanomaly.core.series import Labels
from openanomaly.errors import MalformedRequestError
from openanomaly.pb.prometheus import remote_write_2_pb2 as pb

_SHOWN = 12
"""Labels that a message shows of a series of too many."""


def decode(body: bytes | bytearray, identities: Identities) -> WriteColumns:
    """The columns of an unpacked request; unknown series get slots of `identities`.

    Raises:
        MalformedRequestError: the bytes are not this message; nothing of it is kept.
        RequestTooLargeError: it has too many series, or parts of them.
    """
    read = _read_compiled(body) or _read(body)
    slices, symbols, usual = read.slices, read.symbols, read.usual
    if len(slices) and (not len(symbols) or symbols[0]):
        raise MalformedRequestError(
            "cannot decode io.prometheus.write.v2.Request: symbols must start with ''"
        )
    identities.make_room(len(slices))
    refused = Refused()
    limit = identities.limits.names
    whole = {
        i: _whole(slices[i], i, symbols, limit, refused) for i in np.flatnonzero(~usual.is_usual).tolist()
    }
    raw = _hashes(read, whole)
    slot = identities.find(raw)
    for i, ts in whole.items():
        if ts.fault:
            slot[i] = -1
            ts.refuse(ts.fault, refused)
    kind = usual.kind
    _admit(identities, slot, read, whole, refused)
    for i, ts in whole.items():
        kind[i] = ts.kind
    samples = spread(usual.timestamp_ms, usual.value, slot, whole)
    columns = WriteColumns(slot, None, *samples, kind=kind, refused=refused)
    for i, ts in whole.items():
        if slot[i] >= 0:
            columns.histograms += ts.histograms
            columns.exemplars += ts.exemplars
    return columns


class _Read(NamedTuple):
    """S time series and the symbols they refer to. `raw` is the hashes of the usual series, S rows."""

    slices: Numbered
    symbols: Numbered
    usual: refs.Usual
    raw: NDArray[np.uint64]


def _read_compiled(body: bytes | bytearray) -> _Read | None:
    """By the compiled loop; None where it is not there, or the request is not as simple as it reads."""
    if not kernels.ready() or (found := requests_compiled.read_2(body, COUNT_LIMIT, KINDS)) is None:
        return None
    refs.check(found.refs_bytes)
    return _Read(
        Slices(body, found.start, found.stop),
        Slices(body, found.symbol_start, found.symbol_stop),
        refs.Usual(found.is_usual, found.timestamp_ms, found.value, found.kind),
        found.raw,
    )


def _read(body: bytes | bytearray) -> _Read:
    try:
        request = pb.RequestSlices.FromString(bytes(body))
    except DecodeError as exc:
        raise MalformedRequestError(f"cannot decode io.prometheus.write.v2.Request: {exc}") from exc
    check_count(len(request.timeseries), "time series")
    slices, symbols = list(request.timeseries), list(request.symbols)
    usual, ref, count = refs.read(slices, len(symbols))
    raw = np.zeros((len(slices), 2), np.uint64)
    if slices and symbols:
        raw[usual.is_usual] = refs.hash_series(symbols, ref, count[usual.is_usual])
    return _Read(slices, symbols, usual, raw)


def _hashes(read: _Read, whole: "dict[int, Whole2]") -> NDArray[np.uint64]:
    """(S, 2) raw hashes, of usual series and of those read whole."""
    raw = read.raw
    good = {i: ts for i, ts in whole.items() if not ts.fault}
    if good:
        ref = np.array([r for ts in good.values() for r in ts.refs], np.int64)
        count = np.array([len(ts.refs) for ts in good.values()], np.int64)
        symbols = [read.symbols[i] for i in range(len(read.symbols))]
        raw[list(good)] = refs.hash_series(symbols, ref, count)
    return raw


def _admit(
    identities: Identities,
    slot: NDArray[np.int32],
    read: _Read,
    whole: dict[int, "Whole2"],
    refused: Refused,
) -> None:
    """Slots for the series that have none; those whose labels cannot be become `whole` and are refused."""
    unknown = [i for i in np.flatnonzero(slot < 0).tolist() if i not in whole or not whole[i].fault]
    if not unknown:
        return
    usual, raw = read.usual, read.raw
    for i in unknown:
        if i not in whole:
            labels, fault = _labels(read.symbols, refs.of_usual(read.slices[i]), identities.limits.names)
            whole[i] = Whole2(
                labels, [int(usual.timestamp_ms[i])], [usual.value[i]], fault=fault, kind=int(usual.kind[i])
            )
            if fault:
                whole[i].refuse(fault, refused)
    unknown = [i for i in unknown if not whole[i].fault]
    slot[unknown], reasons = identities.admit(raw[unknown], [whole[i].labels for i in unknown], None)
    for n, reason in reasons.items():
        whole[unknown[n]].refuse(reason, refused)


class Whole2(Whole):
    """A time series of 2.0 with all it has."""

    __slots__ = ("kind", "refs")

    def __init__(
        self,
        labels: Labels,
        timestamp_ms: list[int],
        value: list[float],
        histograms: int = 0,
        exemplars: int = 0,
        fault: str = "",
        kind: int = 0,
        refs: list[int] | None = None,
    ) -> None:
        super().__init__(labels, timestamp_ms, value, histograms, exemplars, b"", fault)
        self.kind = kind
        self.refs = refs or []


def _whole(data: bytes, number: int, symbols: Numbered, labels_limit: int, refused: Refused) -> Whole2:
    check_parts(data)
    try:
        ts = pb.TimeSeries.FromString(data)
    except DecodeError as exc:
        raise MalformedRequestError(f"cannot decode write request: time series {number}: {exc}") from exc
    refused.take_parts(len(ts.samples) + len(ts.histograms) + len(ts.exemplars))
    labels, fault = _labels(symbols, list(ts.labels_refs), labels_limit)
    exemplars = 0
    for e in ts.exemplars:
        _, wrong = _labels(symbols, list(e.labels_refs), labels_limit)
        if wrong:
            refused.add(f"exemplar of time series {number}: {wrong}", exemplars=1)
        else:
            exemplars += 1
    return Whole2(
        labels,
        [s.timestamp for s in ts.samples],
        [s.value for s in ts.samples],
        count_histograms(labels, ts.histograms, refused),
        exemplars,
        fault,
        int(kind_of(ts.metadata.type)),
        list(ts.labels_refs),
    )


def _labels(symbols: Numbered, ref: list[int], limit: int) -> tuple[Labels, str]:
    """Labels by reference, at most `limit`, and what is wrong with them; "" if nothing is."""
    if len(ref) % 2:
        return (), f"{len(ref)} label references are not pairs"
    if ref and max(ref) >= len(symbols):
        return (), f"label reference {max(ref)} is beyond the {len(symbols)} symbols"
    too_many = ""
    # Symbol 0 is "", and a label without a value is none.
    if len(ref) > 2 * limit and (labels := sum(map(bool, ref[1::2]))) > limit:
        too_many = f"{labels} labels, limit {limit}; raise receiver.label_names_limit"
        ref = ref[: 2 * _SHOWN]
    pairs = [(symbols[ref[i]], symbols[ref[i + 1]]) for i in range(0, len(ref), 2)]
    if too_many:
        return tuple((text(name), text(value)) for name, value in pairs), too_many
    try:
        return tuple((name.decode(), value.decode()) for name, value in pairs), ""
    except UnicodeDecodeError as exc:
        return tuple((text(name), text(value)) for name, value in pairs), f"labels are not UTF-8: {exc}"
