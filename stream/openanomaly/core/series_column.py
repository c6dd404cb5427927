"""The series of a frame: ids, labels and kinds as columns."""

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import cramjam
import numpy as np
from numpy.typing import NDArray

from openanomaly.core.fields import Bytes, column
from openanomaly.core.series import Ids, ids_of
from openanomaly.errors import MalformedFrameError
from openanomaly.pb.openanomaly.v1 import frames_pb2 as pb


class SeriesKind(IntEnum):
    """What the sender's metadata say a series is; UNKNOWN where it said nothing."""

    UNKNOWN = 0
    COUNTER = 1
    GAUGE = 2
    HISTOGRAM = 3
    SUMMARY = 4


@dataclass(frozen=True)
class SeriesColumn:
    """S series, with the labels of some or all of them.

    A series without labels in its frame is one whose labels the partition has had before: its block is
    empty. A frame without any labels spares the offsets too.

    Attributes:
        ids: (S, 2) uint64, see core/series.py.
        label_offset: (S + 1,) uint32 into `labels`.
        plain: canonical label blocks, one after another; None where only `labels_zstd` has them.
        kind: (S,) uint8, SeriesKind.
        labels_zstd: the blocks compressed: as they came, or where a column is sent again and again.
    """

    ids: Ids
    label_offset: NDArray[np.uint32]
    plain: bytes | None
    kind: NDArray[np.uint8]
    labels_zstd: bytes | None = None

    @cached_property
    def labels(self) -> bytes:
        """The label blocks; unpacked when first asked for, since a reader knows most series by id.

        Raises:
            MalformedFrameError: they do not decompress, or their offsets do not fit.
        """
        if self.plain is not None:
            return self.plain
        assert self.labels_zstd is not None
        try:
            labels = bytes(cramjam.zstd.decompress(self.labels_zstd))
        except cramjam.DecompressionError as exc:
            raise MalformedFrameError(f"labels do not decompress: {exc}") from exc
        if len(labels) != self.label_offset[-1]:
            raise MalformedFrameError("label offsets do not fit the labels")
        return labels

    @classmethod
    def of(cls, blocks: list[bytes], kind: NDArray[np.uint8] | None = None) -> "SeriesColumn":
        """The column of canonical label blocks."""
        offset = np.zeros(len(blocks) + 1, np.uint32)
        np.cumsum([len(b) for b in blocks], out=offset[1:])
        if kind is None:
            kind = np.zeros(len(blocks), np.uint8)
        return cls(ids_of(blocks), offset, b"".join(blocks), kind)

    def __len__(self) -> int:
        return len(self.ids)

    def block(self, i: int) -> bytes:
        """Canonical label block of series `i`, empty where the frame does not have it."""
        return self.labels[self.label_offset[i] : self.label_offset[i + 1]]

    @property
    def has_labels(self) -> NDArray[np.bool_]:
        """(S,) which series have their labels with them."""
        has: NDArray[np.bool_] = self.label_offset[1:] > self.label_offset[:-1]
        return has

    def label_fields(self, compress: bool) -> "list[tuple[int, Bytes]]":
        """The fields of `Series` that hold labels; none if there are none."""
        if not self.label_offset[-1]:
            return []
        offset = 2, self.label_offset
        if compress:
            return [offset, (5, self.labels_zstd or compress_labels(self.labels))]
        return [offset, (3, self.labels)]

    def to_pb(self, compress: bool) -> pb.Series:
        out = pb.Series(id=self.ids.tobytes(), kind=self.kind.tobytes())
        for number, data in self.label_fields(compress):
            setattr(out, {2: "label_offset", 3: "labels", 5: "labels_zstd"}[number], bytes(data))
        return out

    @classmethod
    def from_pb(cls, series: pb.Series) -> "SeriesColumn":
        packed = series.labels_zstd or None
        plain = None if packed else series.labels
        ids = column(series.id, "<u8", "ids", len(series.id) // 16 * 2).reshape(-1, 2)
        if series.label_offset:
            offset = column(series.label_offset, "<u4", "label offsets", len(ids) + 1)
        else:
            offset = np.zeros(len(ids) + 1, np.uint32)
        fits = offset[0] == 0 and (plain is None or offset[-1] == len(plain))
        if not fits or (offset[1:] < offset[:-1]).any():
            raise MalformedFrameError("label offsets do not fit the labels")
        return cls(ids, offset, plain, column(series.kind, "u1", "kinds", len(ids)), packed)


def compress_labels(labels: bytes) -> bytes:
    """Neighbouring series share most of their labels: zstd at its fastest gains 5 to 20 times."""
    return bytes(cramjam.zstd.compress(labels, level=1))
