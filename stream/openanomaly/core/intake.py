"""Which samples of a decoded request go on: selected, of the accepted replica, not from the future."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from openanomaly.core import kernels
from openanomaly.core.identity import NO_REPLICA, Identities, shown
from openanomaly.core.intake_compiled import look_up
from openanomaly.core.replicas import Replicas
from openanomaly.core.series import Ids, decode_labels

_NAMED = 5


class Numbered(Protocol):
    """Byte strings by number."""

    def __len__(self) -> int: ...
    def __getitem__(self, i: int, /) -> bytes: ...


@dataclass(slots=True)
class Batch:
    """What one request publishes: S series of any partition and their N samples.

    Attributes:
        ids: (S, 2) uint64; a series may be there more than once.
        slot: (S,) int32, their places in the table of identities, as long as the ids there are these.
        partition: (S,) uint16.
        kind: (S,) uint8, SeriesKind.
        labelled: (L,) the series whose labels go along, each with a sample; readers know those of the others.
        blocks: L canonical label blocks.
        row: (N,) uint32, index into the series; ascending.
        timestamp_ms, value: (N,) int64, float64; as sent.
        is_even: each series is known to have one sample, and `row` counts them up.
    """

    ids: Ids
    slot: NDArray[np.int32]
    partition: NDArray[np.uint16]
    kind: NDArray[np.uint8]
    labelled: NDArray[np.int64]
    blocks: list[bytes]
    row: NDArray[np.uint32]
    timestamp_ms: NDArray[np.int64]
    value: NDArray[np.float64]
    is_even: bool = False


@dataclass(slots=True)
class Taken:
    """The batch of one request, what was left out of it, and what its sender must hear.

    Attributes:
        dropped: samples by reason: `unselected`, `replica`, `future`.
        late: how far beyond the limit samples of the first few series were, with their labels.
        late_series: of how many series.
    """

    batch: Batch
    dropped: Counter[str] = field(default_factory=Counter)
    late: list[str] = field(default_factory=list)
    late_series: int = 0


class Intake:
    """Judges requests by what is known of their series. Not for two threads at once."""

    def __init__(
        self, identities: Identities, max_future_ms: int, failover_ms: int, labels_every_s: int
    ) -> None:
        self.identities = identities
        self.replicas = Replicas(failover_ms)
        self._max_future_ms = max_future_ms
        self._labels_every_s = labels_every_s

    def take(
        self,
        slot: NDArray[np.int32],
        blocks: Numbered | None,
        row: NDArray[np.uint32],
        timestamp_ms: NDArray[np.int64],
        value: NDArray[np.float64],
        kind: NDArray[np.uint8] | None,
        now_ms: int,
    ) -> Taken:
        """What is published of S series and N samples.

        Args:
            slot: (S,) places in `identities`, -1 for a series that was refused and has no samples.
            blocks: S label blocks as sent; None where only the table has them.
            row: (N,) index into the series, ascending.
            timestamp_ms, value: (N,).
            kind: (S,) SeriesKind that came with the series, or None.
            now_ms: wall clock.
        """
        now_s = now_ms // 1000
        if kernels.ready() and not self.identities.replicas:
            what = slot, row, timestamp_ms, kind, self.identities.families.kinds
            usual = look_up(self.identities.entries, *what, now_s, now_ms + self._max_future_ms)
            if usual is not None:
                ids, partition, kinds, due = usual
                told = [self._block(slot[i], blocks, i) for i in due.tolist()]
                return Taken(Batch(ids, slot, partition, kinds, due, told, row, timestamp_ms, value, True))
        known = slot >= 0
        entries = self.identities.touch(np.maximum(slot, 0) if not known.all() else slot, now_s)
        if kind is not None and kind.any():
            self.identities.families.learn_series(entries["family"][known], kind[known])
        dropped: Counter[str] = Counter()
        selected = known & (entries["selected"] != 0)
        keep = selected & self._accepted(entries["replica"], selected, now_ms)
        kept: NDArray[np.int64] | None = None
        if not keep.all():
            per_series = np.bincount(row, minlength=len(slot))
            dropped["unselected"] = int(per_series[known & ~selected].sum())
            dropped["replica"] = int(per_series[selected & ~keep].sum())
            place = np.cumsum(keep) - 1
            stays = keep[row]
            row = place[row[stays]].astype(np.uint32)
            timestamp_ms, value = timestamp_ms[stays], value[stays]
            kept = np.flatnonzero(keep)
            slot, entries = slot[kept], entries[kept]

        def block(i: int) -> bytes:
            return self._block(slot[i], blocks, i if kept is None else int(kept[i]))

        labelled = np.flatnonzero(entries["labels_due"] <= now_s)
        batch = Batch(
            np.ascontiguousarray(entries["id"]),
            slot,
            entries["partition"],
            self.identities.families.kind(entries["family"]),
            labelled,
            [],
            row,
            timestamp_ms,
            value,
        )
        taken = Taken(batch, +dropped)
        self._drop_future(taken, block, now_ms)
        if labelled.size:
            # Frames have series with samples alone: the labels of others would be told to nobody.
            has_sample = np.zeros(len(slot), bool)
            has_sample[batch.row] = True
            batch.labelled = labelled = labelled[has_sample[labelled]]
            batch.blocks = [block(i) for i in labelled.tolist()]
        return taken

    def _block(self, slot: int, blocks: Numbered | None, i: int) -> bytes:
        """Canonical label block of a known series: the sender's, `blocks[i]`, where they are that already."""
        if blocks is None or self.identities.entries["own_block"][slot]:
            return self.identities.blocks[slot] or b""
        return blocks[i]

    def told(self, batch: Batch, now_ms: int) -> None:
        """The labels of a batch are durable: they need not go along for a while.

        Each series is due again at its own time, up to a quarter early: no wave of labels.
        """
        ids = batch.ids[batch.labelled]
        early = (ids[:, 1] & np.uint64(0xFF)).astype(np.int64) * self._labels_every_s >> 10
        due_s = now_ms // 1000 + self._labels_every_s - early
        self.identities.tell(batch.slot[batch.labelled], ids, due_s)

    def _accepted(
        self, replica: NDArray[np.int32], selected: NDArray[np.bool_], now_ms: int
    ) -> NDArray[np.bool_]:
        """(S,) whether the series come from replicas that are listened to."""
        accepted = np.ones(len(replica), bool)
        if not self.identities.replicas:
            return accepted
        tagged = selected & (replica != NO_REPLICA)
        if tagged.any():
            for number in np.unique(replica[tagged]).tolist():
                who = self.identities.replicas[number]
                if not self.replicas.accept(who.cluster, who.replica, now_ms):
                    accepted[replica == number] = False
        return accepted

    def _drop_future(self, taken: Taken, block: Callable[[int], bytes], now_ms: int) -> None:
        batch = taken.batch
        latest_ms = now_ms + self._max_future_ms
        future = batch.timestamp_ms > latest_ms
        if not future.any():
            return
        taken.dropped["future"] = int(future.sum())
        series, first = np.unique(batch.row[future], return_index=True)
        taken.late_series = len(series)
        times = batch.timestamp_ms[future]
        for i, at in zip(series[:_NAMED].tolist(), first[:_NAMED].tolist(), strict=True):
            taken.late.append(
                f"{shown(decode_labels(block(i)))}: timestamp {times[at]} ms is "
                f"{(int(times[at]) - now_ms) / 1000:.0f} s ahead of the clock, limit "
                f"{self._max_future_ms / 1000:g}; raise receiver.max_future_s"
            )
        stays = ~future
        batch.row, batch.value = batch.row[stays], batch.value[stays]
        batch.timestamp_ms = batch.timestamp_ms[stays]
