"""Remote-write 1.0: `prometheus.WriteRequest` to columns."""

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from openanomaly.adapters.remote_write.columns import Refused, WriteColumns, check_count, kind_of
from openanomaly.adapters.remote_write.samples import WITH_VALUE, tails
from openanomaly.adapters.remote_write.whole import Whole, count_histograms, spread, text
from openanomaly.core.identity import Identities
from openanomaly.core.series import decode_labels, encode_labels, ids_of
from openanomaly.errors import MalformedRequestError
from openanomaly.pb.prometheus import remote_write_1_pb2 as pb


def decode(body: bytes, identities: Identities) -> WriteColumns:
    """The columns of an unpacked request; unknown series get slots of `identities`.

    Raises:
        MalformedRequestError: the bytes are not this message; nothing of it is kept.
        RequestTooLargeError: it has too many series, or parts of them.
    """
    try:
        request = pb.WriteRequestSlices.FromString(body)
    except DecodeError as exc:
        raise MalformedRequestError(f"cannot decode prometheus.WriteRequest: {exc}") from exc
    check_count(len(request.timeseries), "time series")
    check_count(len(request.metadata), "metadata")
    slices = list(request.timeseries)
    identities.make_room(len(slices))
    end = tails(slices)
    if (end.length == WITH_VALUE).all():
        blocks = [s[:-WITH_VALUE] for s in slices]
    else:
        blocks = [s[:-n] for s, n in zip(slices, end.length.tolist(), strict=True)]
    raw = ids_of(blocks)
    slot = identities.find(raw)
    odd = np.flatnonzero((slot < 0) | (end.length == 0))
    refused = Refused()
    whole: dict[int, Whole] = {}
    for i in odd.tolist():
        ts = _unknown(blocks[i], end.timestamp_ms[i], end.value[i]) if end.length[i] else None
        whole[i] = ts or _whole(slices[i], i, refused)
    if whole:
        found = list(whole.values())
        for i, ts in whole.items():
            blocks[i] = ts.block
        raw = ids_of([ts.block for ts in found])
        slot[odd] = _slots(identities, raw, found, refused)
    samples = spread(end.timestamp_ms, end.value, slot, whole)
    columns = WriteColumns(slot, blocks, *samples, refused=refused)
    for i, ts in whole.items():
        if slot[i] >= 0:
            columns.histograms += ts.histograms
            columns.exemplars += ts.exemplars
    columns.metadata = [(m.metric_family_name, kind_of(m.type)) for m in request.metadata]
    return columns


def _unknown(block: bytes, timestamp_ms: int, value: float) -> Whole | None:
    """A series that is new but of the usual shape, or None if what precedes its sample is no label block."""
    try:
        return Whole(decode_labels(block), [timestamp_ms], [value], block=block)
    except MalformedRequestError:
        return None


def _whole(data: bytes, number: int, refused: Refused) -> Whole:
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
