"""Score frames -> remote-write 1.0 requests.

A time series of our output has the labels of the series it judges, but for `__name__`, which says
what the number is, and `for`, which holds the original name. Its labels never change, so their
bytes are made once and kept; the rest of a time series is one sample of a fixed size.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import cramjam
import numpy as np
from numpy.typing import NDArray

from openanomaly.core.frames import ScoreFlag, ScoreFrame
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.pipelines.selector import ANOMALY_RATE
from openanomaly.core.series import decode_labels, varint
from openanomaly.core.series_column import SeriesColumn
from openanomaly.core.stale import STALE

HEADERS = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}
_KNOWN = 500_000
_ROW = np.dtype([("head", "u1", 3), ("value", "<f8"), ("tag", "u1"), ("time", "u1", 6)])
_SIZE = _ROW.itemsize
_TIME_END = 1 << 42
_SCORE_DIGITS = 6
_MARKER = ScoreFlag.SILENT | ScoreFlag.END


@dataclass(frozen=True, slots=True)
class Encoded:
    """Time series ready to be sent, in their order; one sample each.

    Attributes:
        parts: two pieces of bytes for each of K time series.
        row: (K,) which row of the frame each is of; ascending for each kind of output.
        skipped: rows of the frame that are not for the target, by reason.
    """

    parts: list[bytes]
    row: NDArray[np.int64]
    skipped: dict[str, int]

    def __len__(self) -> int:
        return len(self.row)


class ScoreEncoder:
    """Encodes frames, and remembers the labels of series that it has seen."""

    def __init__(
        self,
        series: Sequence[str] = ("anomaly_score",),
        external_labels: Mapping[str, str] | None = None,
        pipelines: Iterable[Pipeline] = (),
        known: int = _KNOWN,
    ) -> None:
        """`series` names the outputs of pipelines that name none; `known` is how many series of a pipeline
        are remembered."""
        self._outputs = tuple(series)
        self._external = dict(external_labels or {})
        self._known = known
        self._defined = {p.name: p for p in pipelines}
        self._pipelines: dict[tuple[str, bool], _Heads] = {}

    def redefine(self, pipelines: Iterable[Pipeline]) -> None:
        """Pipelines have other labels and outputs from now on."""
        before, self._defined = self._defined, {p.name: p for p in pipelines}
        for name, of_groups in list(self._pipelines):
            if before.get(name) != self._defined.get(name):
                del self._pipelines[name, of_groups]

    def encode(self, frame: ScoreFrame) -> Encoded:
        """The time series of a frame.

        A step that ended an episode, where nothing but episodes is written, becomes a staleness
        marker. A value that is unknown, such as the band of a series without forecast, is left out.

        Raises:
            MalformedRequestError: labels of the frame cannot be read.
        """
        silent = frame.flags & ScoreFlag.SILENT != 0
        marker = frame.flags & _MARKER == _MARKER
        is_time = (frame.timestamp_ms >= 0) & (frame.timestamp_ms < _TIME_END)
        sent = np.flatnonzero((~silent | marker) & is_time)
        skipped = {"silent": int((silent & ~marker).sum())}
        skipped["timestamp"] = len(silent) - sent.size - skipped["silent"]
        known_heads = self._heads(frame.pipeline, frame.of_groups)
        heads = known_heads.of(frame.series, frame.row[sent])
        parts: list[bytes] = []
        rows = []
        for output, head in zip(known_heads.outputs, heads, strict=True):
            value, at = _values(frame, output)[sent], sent
            value[marker[sent]] = STALE
            known = marker[sent] | ~np.isnan(value)
            if not known.all():
                at, value = sent[known], value[known]
                head = [head[i] for i in np.flatnonzero(known).tolist()]
            tails = encode_samples(frame.timestamp_ms[at], value)
            pieces = [b""] * (2 * at.size)
            pieces[0::2] = head
            pieces[1::2] = [tails[i : i + _SIZE] for i in range(0, len(tails), _SIZE)]
            parts += pieces
            rows.append(at)
        return Encoded(parts, np.concatenate(rows), {k: n for k, n in skipped.items() if n})

    def _heads(self, pipeline: str, of_groups: bool) -> "_Heads":
        heads = self._pipelines.get((pipeline, of_groups))
        if heads is None:
            defined = self._defined.get(pipeline)
            own = defined.labels if defined is not None else {}
            named = defined.output.series if defined is not None else None
            labels = {**self._external, **own, "pipeline": pipeline}
            outputs = named or self._outputs
            if of_groups:  # what was observed of a group is its share, which is always written
                outputs = (ANOMALY_RATE, *(output for output in outputs if output != "y"))
            heads = _Heads(outputs, labels, self._known, of_groups)
            self._pipelines[pipeline, of_groups] = heads
        return heads


class _Heads:
    """What comes before the sample of a time series: for each series of a pipeline and each output."""

    def __init__(
        self, outputs: Sequence[str], labels: Mapping[str, str], limit: int, of_groups: bool
    ) -> None:
        self.outputs = tuple(outputs)
        self._of_groups = of_groups
        self._names = [_label(b"__name__", output.encode()) for output in outputs]
        self._labels = {n.encode(): _label(n.encode(), v.encode()) for n, v in labels.items() if v}
        self._limit = limit
        self._known: list[dict[bytes, bytes]] = [{} for _ in outputs]  # by id

    def of(self, series: SeriesColumn, row: NDArray[np.uint32]) -> list[list[bytes]]:
        """For each output the bytes of every row."""
        ids = series.ids[row].tobytes()
        keys = [ids[i : i + 16] for i in range(0, len(ids), 16)]
        try:
            return [list(map(heads.__getitem__, keys)) for heads in self._known]
        except KeyError:
            self._learn(keys, series, row)
        return [list(map(heads.__getitem__, keys)) for heads in self._known]

    def _learn(self, keys: list[bytes], series: SeriesColumn, row: NDArray[np.uint32]) -> None:
        if len(self._known[0]) + len(keys) > self._limit:
            # All are forgotten at once: most of them have gone and would never be looked up again.
            for heads in self._known:
                heads.clear()
        for key, r in zip(keys, row.tolist(), strict=True):
            if key not in self._known[0]:
                for heads, head in zip(self._known, self._make(series.block(r)), strict=True):
                    heads[key] = head

    def _make(self, block: bytes) -> list[bytes]:
        own = _split(block)
        name, _ = own.pop(b"__name__", (b"", b""))
        if self._of_groups:
            own.pop(b"pipeline", None)  # it is ours
        for taken in (b"for", b"pipeline"):
            if taken in own:  # the series has a label of the name of one of ours: as a scrape does it
                value, _ = own.pop(taken)
                free = b"exported_" + taken
                while free in own:
                    free = b"exported_" + free
                own[free] = value, _label(free, value)
        labels = self._labels | {key: label for key, (_, label) in own.items()}
        if name:
            labels[b"for"] = _label(b"for", name)
        out = []
        for output, label in zip(self.outputs, self._names, strict=True):
            labels[b"__name__"] = label
            whole = b"".join([x for k, x in sorted(labels.items()) if output != ANOMALY_RATE or k != b"for"])
            out.append(b"\x0a" + varint(len(whole) + _SIZE) + whole)
        return out


def _label(name: bytes, value: bytes) -> bytes:
    body = b"\x0a" + varint(len(name)) + name + b"\x12" + varint(len(value)) + value
    return b"\x0a" + varint(len(body)) + body


def _split(block: bytes) -> dict[bytes, tuple[bytes, bytes]]:
    """By name the value and the whole bytes of each label of a block.

    Raises:
        MalformedRequestError: the bytes are not a label block.
    """
    out = {}
    at = 0
    try:
        while at < len(block):
            stop, middle = at + 2 + block[at + 1], at + 4 + block[at + 3]
            is_usual = block[at] == block[at + 2] == 0x0A and block[middle] == 0x12
            if not is_usual or middle + 2 + block[middle + 1] != stop or stop - at > 0x7F:
                break  # lengths of more than one byte, or not a label
            out[block[at + 4 : middle]] = block[middle + 2 : stop], block[at:stop]
            at = stop
        if at == len(block):
            return out
    except IndexError:
        pass
    labels = [(name.encode(), value.encode()) for name, value in decode_labels(block)]
    return {name: (value, _label(name, value)) for name, value in labels}


def _values(frame: ScoreFrame, output: str) -> NDArray[np.float64]:
    if output == "anomaly_score":
        # float32 has about 7 digits; what it shows beyond is noise that a store cannot compress.
        return frame.score.astype(np.float64).round(_SCORE_DIGITS)
    if output in ("y", ANOMALY_RATE):
        return frame.value
    expected: NDArray[np.float64] = frame.expected[:, ("yhat", "yhat_lower", "yhat_upper").index(output)]
    return expected


def encode_samples(timestamp_ms: NDArray[np.int64], value: NDArray[np.float64]) -> bytes:
    """One sample of a time series after another: 18 bytes each, the timestamp a varint of six bytes."""
    out = np.empty(len(value), _ROW)
    out["head"] = (0x12, _SIZE - 2, 0x09)
    out["value"] = value
    out["tag"] = 0x10
    time = out["time"]
    for i in range(6):
        time[:, i] = (timestamp_ms >> (7 * i)) & 0x7F
    time[:, :5] |= 0x80
    return out.tobytes()


def pack(parts: Sequence[bytes]) -> bytes:
    """The body of a request with these time series."""
    return bytes(cramjam.snappy.compress_raw(b"".join(parts)))
