"""What the columns of a table are, and their pieces given to a recording.

A table is wide (a time, and a column of values for each series) or long (a time, one column of values,
and labels beside it). What our own output has besides is left out, so that it can be read again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openanomaly.adapters.recordings import naming
from openanomaly.core.recording import RecordingBuilder
from openanomaly.core.series import Labels
from openanomaly.errors import ConfigError

TIMES = ("timestamp", "time", "timestamp_ms", "ts", "date", "datetime", "ds", "_time", "timestamps")
VALUES = ("value", "y", "_value")
EVENTS = ("is_anomaly", "label", "anomaly", "is_anomalous")
OURS = ("yhat", "yhat_lower", "yhat_upper", "anomaly_score", "reason")
SERIES = "series"
NOTHING = frozenset(("", "nan", "null", "none", "na", "n/a", "-"))
"""Words for a value that is missing, in any case."""
YES, NO = frozenset(("1", "1.0", "true", "t", "yes")), frozenset(("0", "0.0", "false", "f", "no"))


@dataclass(frozen=True, slots=True)
class Roles:
    """Positions of columns by what they are."""

    time: int
    values: tuple[int, ...]
    labels: tuple[int, ...] = ()
    event: int | None = None


def roles_of(
    place: str, names: Sequence[str] | None, numeric: Sequence[bool], truth: Sequence[bool]
) -> Roles:
    """What columns are.

    Args:
        place: the file, for messages.
        names: of the header; None if there is none.
        numeric: which columns have numbers.
        truth: which columns say yes or no, as a label of anomalies does.

    Raises:
        ConfigError: there is no time, or nothing beside it.
    """
    count = len(numeric)
    if count < 2:
        raise ConfigError(
            f"{place}: found {count} column, expected a time and a value, separated by , ; or tab"
        )
    if names is None:
        odd = [i for i in range(1, count) if not numeric[i]]
        if odd:
            raise ConfigError(
                f"{place}: column {odd[0] + 1} is not of numbers: give the file a header that names them"
            )
        return Roles(0, tuple(range(1, count)))
    lower = [name.strip().lower() for name in names]
    time = next((lower.index(name) for name in TIMES if name in lower), 0)
    event = next((lower.index(n) for n in EVENTS if n in lower and truth[lower.index(n)]), None)
    left = [i for i in range(count) if i not in (time, event) and lower[i] not in OURS]
    value = next((lower.index(name) for name in VALUES if name in lower), None)
    if value is None or value not in left:
        values = [i for i in left if numeric[i]]
        if not values:
            raise ConfigError(f"{place}: no column has numbers beside the time, which is {names[time]!r}")
        if len(values) == len(left):
            return Roles(time, tuple(values), event=event)
        if len(values) > 1:
            shown = ", ".join(repr(names[i]) for i in left if not numeric[i])
            raise ConfigError(
                f"{place}: several columns have numbers, and {shown} has text: name one `value`; "
                "all others are labels then"
            )
        (value,) = values
    elif not numeric[value]:
        raise ConfigError(f"{place}: column {names[value]!r} has no numbers")
    return Roles(time, (value,), tuple(i for i in left if i != value), event)


@dataclass(frozen=True, slots=True)
class Piece:
    """N rows of a table, by their roles.

    Attributes:
        values: (N,) float64 of each column of values.
        labels: (N,) texts of each column of labels.
        is_event: (N,); None if the table has no such column.
    """

    timestamp_ms: NDArray[np.int64]
    values: list[NDArray[np.float64]]
    labels: list[Sequence[str]]
    is_event: NDArray[np.bool_] | None


class Table:
    """Gives the pieces of one table to a recording."""

    def __init__(
        self, stem: str, names: Sequence[str] | None, roles: Roles, builder: RecordingBuilder
    ) -> None:
        self._builder = builder
        self._label_names = [names[i].strip() for i in roles.labels] if names is not None else []
        if len(roles.values) == 1:
            self._series = [_named(stem)]
        elif names is None:
            self._series = [_named(f"{stem}_{i + 1}") for i in roles.values]
        else:
            self._series = [naming.read(names[i].strip() or f"{stem}_{i + 1}") for i in roles.values]
        self._known: dict[tuple[str, ...], int] = {}
        self._found: list[Labels] = []
        self._stem = stem

    def add(self, piece: Piece) -> None:
        """Take rows."""
        if not piece.labels:
            for labels, value in zip(self._series, piece.values, strict=True):
                # In a wide table an empty cell is nothing: series need not share their times.
                there = ~np.isnan(value) if len(self._series) > 1 else None
                if there is None or there.all():
                    self._builder.add(labels, piece.timestamp_ms, value, piece.is_event)
                else:
                    event = None if piece.is_event is None else piece.is_event[there]
                    self._builder.add(labels, piece.timestamp_ms[there], value[there], event)
            return
        (value,) = piece.values
        known = self._known
        keys = zip(*piece.labels, strict=True)
        index = np.fromiter((known.setdefault(key, len(known)) for key in keys), np.int64, len(value))
        for key in list(known)[len(self._found) :]:
            self._found.append(self._labels(key))
        order = np.argsort(index, kind="stable")
        for at in np.split(order, np.flatnonzero(np.diff(index[order])) + 1):
            if at.size:
                event = None if piece.is_event is None else piece.is_event[at]
                labels = self._found[int(index[at[0]])]
                self._builder.add(labels, piece.timestamp_ms[at], value[at], event)

    def _labels(self, key: Sequence[str]) -> Labels:
        found: dict[str, str] = {}
        for name, value in zip(self._label_names, key, strict=True):
            if name == SERIES:
                found |= dict(naming.read(value))
            elif value:
                found[name or "label"] = value
        return tuple(sorted(found.items())) or _named(self._stem)


def _named(name: str) -> Labels:
    return (("__name__", name),)
