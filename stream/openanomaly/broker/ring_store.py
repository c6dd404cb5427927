"""`ring://local`: a Faust table over state that somebody else owns.

Faust sees tables with changelogs, recovery and standby copies; the data lives in numpy arrays of
the window worker, which is told of every change (`ChangelogOwner`). Several tables may share one
owner.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from faust.stores.base import Store
from faust.types import TP

from openanomaly.broker.faust_app import publish
from openanomaly.broker.topics import TopicSpec

if TYPE_CHECKING:
    from openanomaly.broker.faust_app import App

_RECOVERY_BUFFER = 64
"""Records that Faust gathers before it hands them over; a record is up to 1 MB."""


class ChangelogOwner(Protocol):
    """Who holds the state of tables."""

    def apply(self, table: str, partition: int, offset: int, key: bytes | None, value: bytes | None) -> None:
        """One record, in the order of the changelog, while recovering or as a standby."""

    def drop(self, table: str, partition: int) -> None:
        """The partition is no longer ours, neither active nor standby."""

    def revoked(self, table: str) -> None:
        """A rebalance began: nothing is active until `recovered`."""

    def recovered(self, table: str, active: set[int], standby: set[int]) -> None:
        """Recovery ended; streams open after this."""


class RingStore(Store):
    """Hands Faust's calls to the owner, and says truly what is already in memory."""

    def __init__(self, *args: Any, options: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, options=options, **kwargs)
        self.owner: ChangelogOwner = options["owner"]
        self._offsets: dict[TP, int] = {}
        self._active: set[int] = set()
        self._generation: int | None = None
        self._lives: Counter[int] = Counter()  # how often a partition was dropped

    # -- what Faust calls ------------------------------------------------------------------------

    def persisted_offset(self, tp: TP) -> int | None:
        """Last changelog offset that is in memory: a partition we hold is not read again."""
        return self._offsets.get(tp)

    def set_persisted_offset(self, tp: TP, offset: int) -> None:
        self._offsets[tp] = max(offset, self._offsets.get(tp, -1))

    def apply_changelog_batch(self, batch: Iterable[Any], to_key: Any, to_value: Any) -> None:
        for event in batch:
            message = event.message
            tp = TP(message.topic, message.partition)
            if message.offset <= self._offsets.get(tp, -1):
                continue
            try:
                self.owner.apply(self.table_name, tp.partition, message.offset, message.key, message.value)
            except Exception as exc:
                # Faust's recovery logs what fails in here, tries the record again, and never ends.
                if not self.app.crashed:
                    self.app.add_future(self.app.crash(exc))
                raise
            self._offsets[tp] = message.offset

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        changelog = self.table.changelog_topic_name
        ours = {tp.partition for tp in assigned if tp.topic == changelog}
        if self._generation is not None and generation_id > self._generation + 1:
            # The group has shared partitions out without us: what we hold may have had another owner since.
            ours = set()
        self._generation = generation_id
        # Of a partition that was active, memory holds what we made of our input, not the changelog. As a
        # standby it begins anew: another worker goes on from what is written, and so must a copy.
        active = {tp.partition for tp in self.app.assignor.assigned_actives() if tp.topic == changelog}
        ours -= self._active - active
        for tp in [tp for tp in self._offsets if tp.partition not in ours]:
            del self._offsets[tp]
            self._lives[tp.partition] += 1
            self.owner.drop(self.table_name, tp.partition)
        self._active &= ours

    def revoked(self) -> None:
        self.owner.revoked(self.table_name)

    async def on_recovery_completed(self, active_tps: set[TP], standby_tps: set[TP]) -> None:
        active = self._active = {tp.partition for tp in active_tps}
        # A partition whose changelog is empty is held too: it must be dropped when it leaves.
        for tp in (*active_tps, *standby_tps):
            self._offsets.setdefault(TP(tp.topic, tp.partition), -1)
        self.owner.recovered(self.table_name, active, {tp.partition for tp in standby_tps})

    # -- what send_changelog asks ----------------------------------------------------------------

    def life(self, partition: int) -> int:
        """Changes when the partition is dropped."""
        return self._lives[partition]

    def reset_state(self) -> None:
        """Nothing: memory is what `persisted_offset` says it is."""

    async def backup_partition(self, *args: Any, **kwargs: Any) -> None:
        """Nothing is on disk."""

    def restore_backup(self, *args: Any, **kwargs: Any) -> None:
        """Nothing is on disk."""

    # -- a table is no mapping here --------------------------------------------------------------

    def __getitem__(self, key: Any) -> Any:
        raise KeyError(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        raise TypeError("a ring table is written through send_changelog")

    def __delitem__(self, key: Any) -> None:
        raise TypeError("a ring table is written through send_changelog")

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __contains__(self, key: object) -> bool:
        return False

    def _clear(self) -> None:
        pass


def changelog_table(
    app: "App", name: str, partitions: int, owner: ChangelogOwner, retention_s: float | None
) -> Any:
    """A table whose records go to `owner`.

    Args:
        retention_s: how long the changelog keeps records that are written again and again; None
            keeps the latest record of each key instead (compaction).
    """
    table = app.Table(
        name,
        store="ring://local",
        key_type=bytes,
        value_type=bytes,
        partitions=partitions,
        recovery_buffer_size=_RECOVERY_BUFFER,
        standby_buffer_size=1,  # a copy that is promoted should lack nothing that is there
        options={"owner": owner},
    )
    spec = changelog_spec(app.conf.id, name, partitions, retention_s)
    assert spec.name == table.changelog_topic_name
    app.specs[spec.name] = spec
    return table


def changelog_spec(app_id: str, name: str, partitions: int, retention_s: float | None) -> TopicSpec:
    """The topic of a table's changelog, by the name that Faust gives it."""
    return TopicSpec(
        f"{app_id}-{name}-changelog",
        partitions,
        retention_s,
        compact=retention_s is None,
        drop_consumed=False,
    )


async def send_changelog(table: Any, partition: int, records: Iterable[tuple[bytes, bytes | None]]) -> None:
    """Write (key, value) records of one partition; returns once the broker has all of them."""
    topic, store = table.changelog_topic_name, table.data
    life = store.life(partition)
    offsets = await publish(table.app, topic, [(partition, key, value) for key, value in records])
    if offsets and store.life(partition) == life:  # else it has left meanwhile, or begun anew as a standby
        store.set_persisted_offset(TP(topic, partition), max(offsets))
