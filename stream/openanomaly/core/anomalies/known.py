"""Every series that has scores: its group, its newest step and a few before it."""

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.anomalies.steps import Rings
from openanomaly.core.frames import ScoreFlag
from openanomaly.core.idtable import IdTable
from openanomaly.core.series import Ids, Labels
from openanomaly.core.windows.rows import Rows

NOT_TRACKED = -1
_GROUPS = 2_000
"""Groups that have a name of their own; series of further ones share the last."""
OTHERS = ("", "")


class Groups:
    """Series of one `job`, or of one name where they have no job."""

    def __init__(self, limit: int = _GROUPS) -> None:
        self._limit = limit
        self.names: list[tuple[str, str]] = [OTHERS]
        """By number: the label that makes the group, and its value."""
        self._numbers: dict[tuple[str, str], int] = {}

    def of(self, labels: Labels) -> int:
        """The number of a series' group."""
        have = dict(labels)
        label = "job" if have.get("job") else "__name__"
        key = label, have.get(label, "")[:256]
        number = self._numbers.get(key)
        if number is None:
            if len(self.names) > self._limit:
                return 0
            number = self._numbers[key] = len(self.names)
            self.names.append(key)
        return number


class Known:
    """Rows of at most `limit` series, each of one pipeline.

    Columns by row: `pipeline` and `group` are numbers, `newest_ms` is the time of the newest step,
    `seen_ms` the wall clock when it came, `flags` what it said, `track` a place in Tracks.
    """

    def __init__(self, limit: int, lead_steps: int) -> None:
        self.limit = limit
        self.is_held = np.zeros(limit, bool)
        self.pipeline = np.zeros(limit, np.int16)
        self.group = np.zeros(limit, np.int32)
        self.newest_ms = np.zeros(limit, np.int64)
        self.seen_ms = np.zeros(limit, np.int64)
        self.flags = np.zeros(limit, np.uint8)
        self.track = np.full(limit, NOT_TRACKED, np.int32)
        self.lead = Rings(limit, lead_steps)
        self._ids = np.zeros((limit, 2), np.uint64)
        self._tables: list[IdTable] = []
        self._end = 0  # rows from here on were never used
        self._free: list[int] = []

    @property
    def row_bytes(self) -> int:
        """Bytes of a series, its place in a table of ids included."""
        columns = (self.pipeline, self.group, self.newest_ms, self.seen_ms, self.flags, self.track)
        return self.lead.row_bytes + sum(c.itemsize for c in columns) + 1 + 16 + 80

    @property
    def room(self) -> int:
        return self.limit - self._end + len(self._free)

    @property
    def rows(self) -> Rows:
        """The rows that are held."""
        return np.flatnonzero(self.is_held[: self._end])

    def id(self, row: int) -> str:
        key: bytes = self._ids[row].tobytes()
        return key.hex()

    @property
    def pipelines(self) -> int:
        """How many have been added: their numbers are below this."""
        return len(self._tables)

    def add_pipeline(self) -> int:
        self._tables.append(IdTable())
        return len(self._tables) - 1

    def find(self, pipeline: int, ids: Ids) -> NDArray[np.int64]:
        """(S,) the rows of series, -1 where there is none."""
        return self._tables[pipeline].find(ids).astype(np.int64)

    def admit(self, pipeline: int, ids: Ids, groups: list[int]) -> Rows:
        """Rows for series that have none and differ from one another; there must be room."""
        rows = np.array([self._take_row() for _ in groups], np.int64)
        self.is_held[rows] = True
        self.pipeline[rows] = pipeline
        self.group[rows] = groups
        self.newest_ms[rows] = np.iinfo(np.int64).min
        self.track[rows] = NOT_TRACKED
        self._ids[rows] = ids
        self.lead.clear(rows)
        self._tables[pipeline].insert(ids, rows.astype(np.int32))
        return rows

    def _take_row(self) -> int:
        if self._free:
            return self._free.pop()
        self._end += 1
        return self._end - 1

    def release(self, rows: Rows) -> None:
        """Forget series; none of them may be tracked."""
        for pipeline in np.unique(self.pipeline[rows]).tolist():
            mine = rows[self.pipeline[rows] == pipeline]
            self._tables[pipeline].remove(self._ids[mine])
        self.is_held[rows] = False
        self._free += rows.tolist()

    def make_room(self, wanted: int) -> None:
        """Forget the normal series that were longest without a step, until there is room for `wanted`."""
        missing = wanted - self.room
        if missing <= 0:
            return
        rows = self.rows
        normal = rows[(self.track[rows] == NOT_TRACKED) & (self.flags[rows] & ScoreFlag.OPEN == 0)]
        self.release(normal[np.argsort(self.seen_ms[normal], kind="stable")[:missing]])
