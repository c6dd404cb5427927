"""Changelog records of windows that no pipeline asks for: a copy may hear of one later than who writes."""

from openanomaly.errors import RestartNeededError

_MOST_BYTES = 4 << 20


class Strangers:
    """The records of a partition that were passed over, up to a limit for all of them."""

    def __init__(self) -> None:
        self._records: dict[int, list[tuple[bytes, bytes]]] = {}
        self._bytes = 0

    def keep(self, block: int, key: bytes, value: bytes) -> None:
        """Pass over a record of a block, and keep it as long as there is room."""
        held = self._records.setdefault(block, [])
        self._bytes += len(key) + len(value)
        if self._bytes > _MOST_BYTES:
            for records in self._records.values():
                records.clear()
        else:
            held.append((key, value))

    def recall(self, block: int, partition: int) -> list[tuple[bytes, bytes]]:
        """(key, value) of all that was passed over of a block, in its order.

        Raises:
            RestartNeededError: not all of it was kept.
        """
        held = self._records.pop(block, None)
        if held is not None and not held:
            raise RestartNeededError(
                f"partition {partition} is being copied and has passed over windows that are wanted now"
            )
        return held or []

    def clear(self) -> None:
        """Nobody will ask for them any more."""
        self._records.clear()
