"""Who a series is, by the bytes that named it: a bounded table that forgets what it has not seen.

Decoding labels costs microseconds, looking up a hash of their bytes tens of nanoseconds. So the hot
path hashes the label block as it came (in any order, with any replica label) and looks the hash up:
what is known of it is its canonical id, its partition, and whether any pipeline wants it. Only an
unknown hash is decoded.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from openanomaly.core import ids_compiled, kernels
from openanomaly.core.families import Families
from openanomaly.core.idtable import IdTable
from openanomaly.core.series import Ids, Labels, canonical, encode_labels, ids_of, partition_of
from openanomaly.errors import MalformedRequestError

Select = Callable[[Labels], bool]

NO_REPLICA = -1
_REPLICAS = 65_536

# One record of whole words, so that all that is known of a series costs one cache line or two.
ENTRY = np.dtype(
    [
        ("id", "<u8", 2),
        ("family", "<i4"),
        ("replica", "<i4"),
        ("seen", "<u4"),
        ("labels_due", "<u4"),
        ("partition", "<u2"),
        ("selected", "u1"),
        ("own_block", "u1"),
        ("", "V4"),
    ]
)


@dataclass(frozen=True, slots=True)
class LabelLimits:
    """Bounds of a label set."""

    names: int = 64
    name_bytes: int = 1024
    value_bytes: int = 4096
    block_bytes: int = 500_000
    """Of the whole block: one series must fit into a frame."""


class Replica(NamedTuple):
    """Who sent a series: a cluster's name, and which of its replicas."""

    cluster: str
    replica: str


class _Entered(NamedTuple):
    """A series that gets a slot: its canonical block, whether that differs from the sender's, and so on."""

    own: bytes
    differs: bool
    family: int
    replica: int
    selected: bool


class Identities:
    """Slots of known label blocks. A slot is valid until the next `make_room`.

    Attributes:
        entries: (capacity,) ENTRY by slot. `own_block` says that the canonical block differs from the
            bytes that were hashed, and is in `blocks`; `seen` and `labels_due` are Unix seconds, of the
            last sample and from when on readers of the broker must be told the labels again.
        replicas: what `ENTRY.replica` counts.
        forgotten: blocks that made room for others.
        limits: of label sets.
    """

    def __init__(
        self,
        capacity: int,
        partitions: int,
        select: Select,
        limits: LabelLimits | None = None,
        replica_labels: Sequence[str] = (),
        cluster_label: str = "cluster",
    ) -> None:
        self._capacity = capacity
        self._partitions = partitions
        self._select = select
        self.limits = limits or LabelLimits()
        self._replica_labels = frozenset(replica_labels)
        self._cluster_label = cluster_label
        self.replicas: list[Replica] = []
        self._replica_of: dict[Replica, int] = {}
        self.families = Families()
        self.forgotten = 0
        self._clear(1024)

    def _clear(self, room: int) -> None:
        self._table = IdTable(room)
        self._raw = np.zeros((room, 2), np.uint64)
        self.entries = np.zeros(room, ENTRY)
        self._blocks: list[bytes | None] = []

    def __len__(self) -> int:
        return len(self._blocks)

    def find(self, raw: Ids) -> NDArray[np.int32]:
        """(S,) slots of raw hashes, MISSING (-1) where unknown."""
        return self._table.find_places(raw, self._raw[: len(self._blocks)])

    def touch(self, slot: NDArray[np.int32], now_s: int) -> NDArray[np.void]:
        """(S,) entries of known series, now seen."""
        self.entries["seen"][slot] = now_s
        if kernels.ready():
            return ids_compiled.take(self.entries, slot)
        found: NDArray[np.void] = self.entries[slot]
        return found

    def tell(self, slot: NDArray[np.int32], ids: Ids, due_s: NDArray[np.int64]) -> None:
        """The labels of these series are durable; slots that have another owner by now are left alone."""
        there = np.flatnonzero(slot < len(self._blocks))
        there = there[(self.entries["id"][slot[there]] == ids[there]).all(axis=1)]
        self.entries["labels_due"][slot[there]] = due_s[there]

    @property
    def blocks(self) -> list[bytes | None]:
        """Canonical blocks by slot, None where it is what was hashed."""
        return self._blocks

    def reselect(self, select: Select) -> None:
        """Pipelines have changed: everything is judged anew when it is next seen."""
        self._select = select
        self._clear(1024)

    def make_room(self, need: int) -> None:
        """Before a request of `need` series: afterwards no slot changes until the next call."""
        if len(self._blocks) + need > self._capacity:
            self._forget(need)

    def admit(
        self, raw: Ids, sent: Sequence[Labels], blocks: Sequence[bytes] | None
    ) -> tuple[NDArray[np.int32], dict[int, str]]:
        """Give slots to series whose `raw` hashes are unknown; a hash may repeat.

        Args:
            raw: (S, 2) what will be looked up.
            sent: S labels as the sender ordered them.
            blocks: S label blocks that the sender's bytes hold; None where they hold none (2.0).

        Returns:
            slots, -1 for a series that is refused, and why by its number.
        """
        slots = np.full(len(sent), -1, np.int32)
        refused: dict[int, str] = {}
        fresh: dict[bytes, int] = {}
        first: list[int] = []
        entered: list[_Entered] = []
        for i, labels in enumerate(sent):
            key = raw[i].tobytes()
            if (known := fresh.get(key)) is not None:
                slots[i] = known
                continue
            try:
                entered.append(self._judge(labels, blocks[i] if blocks else None))
            except MalformedRequestError as exc:
                refused[i] = str(exc)
            else:
                slots[i] = fresh[key] = len(self._blocks) + len(first)
                first.append(i)
        if first:
            keys = np.ascontiguousarray(raw[first])
            self._enter(keys, entered)
            self._table.insert(keys, slots[first])
        return slots, refused

    def _judge(self, sent: Labels, block: bytes | None) -> "_Entered":
        """What is to be known of a series.

        Raises:
            MalformedRequestError: its labels cannot be.
        """
        try:
            labels = canonical(sent)
        except MalformedRequestError as exc:
            raise MalformedRequestError(f"{shown(sent)}: {exc}") from exc
        self._check(labels)
        replica = NO_REPLICA
        if self._replica_labels:
            labels, replica = self._split_replica(labels)
        own = encode_labels(labels)
        if len(own) > self.limits.block_bytes:
            raise MalformedRequestError(
                f"{shown(labels)}: {len(own)} bytes of labels, limit {self.limits.block_bytes}; "
                "raise receiver.frame_limit_bytes"
            )
        name = next(value for label, value in labels if label == "__name__")
        return _Entered(
            own, own != block, self.families.index_of(name.encode()), replica, self._select(labels)
        )

    def _enter(self, raw: Ids, entered: "list[_Entered]") -> None:
        """Fill the next slots."""
        start, stop = len(self._blocks), len(self._blocks) + len(entered)
        while stop > len(self.entries):
            self._widen()
        own, differs, family, replica, selected = zip(*entered, strict=True)
        entries = self.entries[start:stop]
        entries["id"] = ids_of(own)
        entries["partition"] = partition_of(entries["id"], self._partitions)
        entries["family"], entries["replica"] = family, replica
        entries["selected"], entries["own_block"] = selected, differs
        self._raw[start:stop] = raw
        self._blocks += [block if other else None for block, other in zip(own, differs, strict=True)]

    def _check(self, labels: Labels) -> None:
        limits = self.limits
        if len(labels) > limits.names:
            raise MalformedRequestError(
                f"{shown(labels)}: {len(labels)} labels, limit {limits.names}; "
                "raise receiver.label_names_limit"
            )
        for name, value in labels:
            if len(name.encode()) > limits.name_bytes:
                raise MalformedRequestError(
                    f"{shown(labels)}: the name of label {name[:64]!r}... has {len(name.encode())} bytes, "
                    f"limit {limits.name_bytes}; raise receiver.label_name_limit_bytes"
                )
            if len(value.encode()) > limits.value_bytes:
                raise MalformedRequestError(
                    f"{shown(labels)}: the value of label {name!r} has {len(value.encode())} bytes, "
                    f"limit {limits.value_bytes}; raise receiver.label_value_limit_bytes"
                )
        if not any(name == "__name__" for name, _ in labels):
            raise MalformedRequestError(f"{shown(labels)}: no metric name (label __name__)")

    def _split_replica(self, labels: Labels) -> tuple[Labels, int]:
        """Labels without those that tell replicas apart, and the number of the replica."""
        name = "/".join(v for n, v in labels if n in self._replica_labels)
        if not name:
            return labels, NO_REPLICA
        replica = Replica(dict(labels).get(self._cluster_label, ""), name)
        number = self._replica_of.get(replica)
        if number is None:
            if len(self.replicas) >= _REPLICAS:
                raise MalformedRequestError(
                    f"{shown(labels)}: more than {_REPLICAS} replicas; receiver.replica_labels must name "
                    "labels with one value per sender"
                )
            number = self._replica_of[replica] = len(self.replicas)
            self.replicas.append(replica)
        return tuple(pair for pair in labels if pair[0] not in self._replica_labels), number

    def _widen(self) -> None:
        self.entries = np.concatenate([self.entries, np.zeros_like(self.entries)])
        self._raw = np.concatenate([self._raw, np.zeros_like(self._raw)])

    def _forget(self, need: int) -> None:
        """Half the table goes, or more for a request that needs it: the longest unseen."""
        used = len(self._blocks)
        keep = max(0, min(used // 2, self._capacity - need))
        order = np.argsort(self.entries["seen"][:used], kind="stable")[used - keep :]
        raw, entries = self._raw[order], self.entries[order]
        blocks = [self._blocks[i] for i in order.tolist()]
        self._clear(max(1024, keep))
        self._raw[:keep], self.entries[:keep], self._blocks = raw, entries, blocks
        if keep:
            self._table.insert(raw, np.arange(keep, dtype=np.int32))
        self.forgotten += used - keep


def shown(labels: Labels) -> str:
    """Labels as people write them, cut to a length that fits a message."""
    text = "{" + ", ".join(f"{name[:64]}={value[:64]!r}" for name, value in labels[:12]) + "}"
    return text if len(text) <= 512 else text[:509] + "..."
