"""Series that are anomalous, or were a while ago: their steps and their latest episode."""

import numpy as np

from openanomaly.core.anomalies.steps import STEP, Rings, Steps
from openanomaly.core.frames import ScoreFlag
from openanomaly.core.series import Labels, decode_labels
from openanomaly.core.windows.rows import Rows

_FREE = -1
_LONG_BLOCK = 8 << 10
_LONG_WORD = 256


class Tracks:
    """At most `limit` series, the last `steps` steps of each.

    Columns by track: `row` in Known; `since_ms` the step its episode began with, `is_start` whether that
    is known or only the first step we saw, and `since_seen_ms` the wall clock then; `peak` its step with
    the highest score; `ended_ms` the step it ended with and `ended_seen_ms` the wall clock then, 0 while
    it goes on.
    """

    def __init__(self, limit: int, steps: int) -> None:
        self.limit = limit
        self.steps = Rings(limit, steps)
        self.row = np.full(limit, _FREE, np.int32)
        self.since_ms = np.zeros(limit, np.int64)
        self.is_start = np.zeros(limit, bool)
        self.since_seen_ms = np.zeros(limit, np.int64)
        self.peak = np.zeros(limit, STEP)
        self.ended_ms = np.zeros(limit, np.int64)
        self.ended_seen_ms = np.zeros(limit, np.int64)
        self._labels: list[Labels] = [()] * limit
        self._free = list(range(limit))[::-1]

    @property
    def row_bytes(self) -> int:
        """Bytes of a series without its labels."""
        columns = (self.row, self.since_ms, self.is_start, self.since_seen_ms, self.peak)
        return self.steps.row_bytes + sum(c.itemsize for c in columns) + 16

    @property
    def room(self) -> int:
        return len(self._free)

    @property
    def held(self) -> Rows:
        return np.flatnonzero(self.row != _FREE)

    @property
    def ended(self) -> Rows:
        """Tracks whose episode is over, the longest ago first."""
        held = self.held
        over = held[self.ended_ms[held] != 0]
        order: Rows = over[np.argsort(self.ended_seen_ms[over], kind="stable")]
        return order

    def labels(self, track: int) -> Labels:
        return self._labels[track]

    def begin(self, row: int, block: bytes, lead: Steps) -> int:
        """Track a series from the newest of its steps on, which is in an episode; there must be room."""
        labels = shown_labels(block)
        track = self._free.pop()
        self.row[track] = row
        self._labels[track] = labels
        self.steps.replace(track, lead)
        self.ended_ms[track] = 1  # as after an earlier episode: `follow` begins one
        return track

    def follow(self, tracks: Rows, steps: Steps, seen_ms: int) -> None:
        """What one more step of each of `tracks` says of its episode."""
        flags, time_ms, score = steps["flags"], steps["time_ms"], steps["score"]
        is_open = flags & ScoreFlag.OPEN != 0
        starts = flags & ScoreFlag.START != 0
        was_open = self.ended_ms[tracks] == 0
        ends = was_open & ~is_open
        self.ended_ms[tracks[ends]] = time_ms[ends]
        self.ended_seen_ms[tracks[ends]] = seen_ms
        begins = is_open & (starts | ~was_open)
        begun = tracks[begins]
        self.since_ms[begun] = time_ms[begins]
        self.is_start[begun] = starts[begins]
        self.since_seen_ms[begun] = seen_ms
        self.ended_ms[begun] = self.ended_seen_ms[begun] = 0
        self.peak["score"][begun] = -np.inf
        higher = is_open & (score > self.peak["score"][tracks])
        self.peak[tracks[higher]] = steps[higher]

    def put(self, tracks: Rows, steps: Steps, leads: Rings, after_ms: int) -> None:
        """One more step of each of `tracks`; none later than `after_ms` after the end of an episode.

        What an ended one shows stays its episode. When another begins, what came between and is still
        among the steps of `leads` is added: the chart has no gap that the series had not.
        """
        ended_ms, time_ms = self.ended_ms[tracks], steps["time_ms"]
        is_open = steps["flags"] & ScoreFlag.OPEN != 0
        again = np.flatnonzero((ended_ms != 0) & is_open & (time_ms - ended_ms > after_ms))
        for i in again.tolist():
            track = int(tracks[i])
            held, lead = self.steps.of(track), leads.of(int(self.row[track]))
            between = (lead["time_ms"] > held["time_ms"][-1]) & (lead["time_ms"] < time_ms[i])
            self.steps.replace(track, np.concatenate([held, lead[between]]))
        put = (ended_ms == 0) | is_open | (time_ms - ended_ms <= after_ms)
        self.steps.put(tracks[put], steps[put])

    def release(self, tracks: Rows) -> None:
        self.row[tracks] = _FREE
        for track in tracks.tolist():
            self._labels[track] = ()
        self._free += tracks.tolist()


def shown_labels(block: bytes) -> Labels:
    """The labels of a block; of a very long one each name and value is cut, so that memory is bounded.

    Raises:
        MalformedRequestError: the bytes are not a label block.
    """
    labels = decode_labels(block)
    if len(block) <= _LONG_BLOCK:
        return labels
    return tuple((_cut(name), _cut(value)) for name, value in labels)


def _cut(word: str) -> str:
    return word if len(word) <= _LONG_WORD else word[: _LONG_WORD - 1] + "…"
