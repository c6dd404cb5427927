"""Remote-write 1.0: `prometheus.WriteRequest` to columns."""

from typing import NamedTuple

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from openanomaly.adapters.remote_write.columns import (
    COUNT_LIMIT,
    Metadata,
    Refused,
    Slices,
    WriteColumns,
    check_count,
    kind_of,
)
from openanomaly.adapters.remote_write.samples import WITH_VALUE, tails
from openanomaly.adapters.remote_write.whole import Whole, check_parts, count_histograms, spread, text
from openanomaly.core import kernels, requests_compiled
from openanomaly.core.identity import Identities
from openanomaly.core.series import decode_labels, encode_labels, ids_of
from openanomaly.errors import MalformedRequestError
from openanomaly.pb.prometheus import remote_write_1_pb2 as pb


class _Read(NamedTuple):
    """S time series: their bytes, their label blocks, and their one sample.

    `is_usual` (S,) says which are labels and one sample; of the others `blocks`, `raw`, `timestamp_ms`
    and `value` mean nothing.
    """

    slices: list[bytes] | Slices
    blocks: list[bytes] | Slices
    is_usual: NDArray[np.bool_]
    raw: NDArray[np.uint64]
    timestamp_ms: NDArray[np.int64]
    value: NDArray[np.float64]


def decode(body: bytes | bytearray, identities: Identities) -> WriteColumns:
    """The columns of an unpacked request; unknown series get slots of `identities`.

    Raises:
        MalformedRequestError: the bytes are not this message; nothing of it is kept.
        RequestTooLargeError: it has too many series, or parts of them.
    """
    read, metadata = _read_compiled(body), None
    if read is None:
        read, metadata = _read(body)
    identities.make_room(len(read.slices))
    slot = identities.find(read.raw)
    odd = np.flatnonzero((slot < 0) | ~read.is_usual)
    refused = Refused()
    whole: dict[int, Whole] = {}
    unusual: list[int] = []
    for i in odd.tolist():
        ts = _unknown(read.blocks[i], read.timestamp_ms[i], read.value[i]) if read.is_usual[i] else None
        if ts is None:
            ts = _whole(read.slices[i], i, refused)
            unusual.append(i)
        whole[i] = ts
    if whole:
        for i in unusual:
            read.blocks[i] = whole[i].block
        read.raw[unusual] = ids_of([whole[i].block for i in unusual])
        slot[odd] = _slots(identities, read.raw[odd], list(whole.values()), refused)
    samples = spread(read.timestamp_ms, read.value, slot, whole)
    columns = WriteColumns(slot, read.blocks, *samples, refused=refused)
    for i, ts in whole.items():
        if slot[i] >= 0:
            columns.histograms += ts.histograms
            columns.exemplars += ts.exemplars
    columns.metadata = metadata or []
    return columns


def _read_compiled(body: bytes | bytearray) -> _Read | None:
    """By the compiled loop; None where it is not there, or the request is more than time series."""
    if not kernels.ready() or (found := requests_compiled.read_1(body, COUNT_LIMIT)) is None:
        return None
    start, cut, stop, raw, timestamp_ms, value = found
    is_usual = cut >= 0
    return _Read(Slices(body, start, stop), Slices(body, start, cut), is_usual, raw, timestamp_ms, value)


def _read(body: bytes | bytearray) -> tuple[_Read, list[Metadata]]:
    try:
        request = pb.WriteRequestSlices.FromString(bytes(body))
    except DecodeError as exc:
        raise MalformedRequestError(f"cannot decode prometheus.WriteRequest: {exc}") from exc
    check_count(len(request.timeseries), "time series")
    check_count(len(request.metadata), "metadata")
    slices = list(request.timeseries)
    end = tails(slices)
    if (end.length == WITH_VALUE).all():
        blocks = [s[:-WITH_VALUE] for s in slices]
    else:
        blocks = [s[:-n] for s, n in zip(slices, end.length.tolist(), strict=True)]
    metadata = [(m.metric_family_name, kind_of(m.type)) for m in request.metadata]
    raw = ids_of(blocks).copy()  # of what is read whole it is set anew
    read = _Read(slices, blocks, end.length > 0, raw, end.timestamp_ms, end.value)
    return read, metadata


def _unknown(block: bytes, timestamp_ms: int, value: float) -> Whole | None:
    """A series that is new but of the usual shape, or None if what precedes its sample is no label block."""
    try:
        return Whole(decode_labels(block), [timestamp_ms], [value], block=block)
    except MalformedRequestError:
        return None


def _whole(data: bytes, number: int, refused: Refused) -> Whole:
    check_parts(data)
    try:
        ts = pb.TimeSeries.FromString(data)
    except DecodeError as exc:
        raise MalformedRequestError(f"cannot decode write request: time series {number}: {exc}") from exc
    refused.take_parts(len(ts.samples) + len(ts.histograms) + len(ts.exemplars))
    try:
        labels = tuple((pair.name.decode(), pair.value.decode()) for pair in ts.labels)
        fault = ""
    except UnicodeDecodeError as exc:
        labels = tuple((text(pair.name), text(pair.value)) for pair in ts.labels)
        fault = f"labels are not UTF-8: {exc}"
    return Whole(
        labels,
        [s.timestamp for s in ts.samples],
        [s.value for s in ts.samples],
        count_histograms(labels, ts.histograms, refused),
        len(ts.exemplars),
        encode_labels(labels),
        fault,
    )


def _slots(
    identities: Identities, raw: NDArray[np.uint64], found: list[Whole], refused: Refused
) -> NDArray[np.int32]:
    """Slots of series read whole; those whose labels cannot be are refused, and have -1."""
    slot = identities.find(raw)
    for i, ts in enumerate(found):
        if ts.fault:
            slot[i] = -1
            ts.refuse(ts.fault, refused)
    unknown = [i for i, ts in enumerate(found) if slot[i] < 0 and not ts.fault]
    if unknown:
        who = [found[i] for i in unknown]
        slot[unknown], reasons = identities.admit(
            raw[unknown], [ts.labels for ts in who], [ts.block for ts in who]
        )
        for i, reason in reasons.items():
            who[i].refuse(reason, refused)
    return slot
