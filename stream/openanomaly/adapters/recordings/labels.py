"""What is known to be anomalous, from a CSV: moments, or from when to when."""

from collections.abc import Sequence
from pathlib import Path

from openanomaly.adapters.recordings import naming, times
from openanomaly.adapters.recordings.csv_file import Row, table
from openanomaly.adapters.recordings.times import TimeError
from openanomaly.core.recording import Recording, Span
from openanomaly.errors import ConfigError

_MOMENT = ("timestamp", "time", "ts", "date", "datetime")
_START, _END = ("start", "begin", "from"), ("end", "stop", "to")


MOST = 1_000_000
"""Events of all series together."""


def read(path: Path, recording: Recording) -> list[list[Span]]:
    """Events of each series of `recording`. A line without a series is of all of them.

    Raises:
        ConfigError: the file cannot be read, has too many, or names a series that is not there; with line and
            value.
    """
    count = 0
    names, rows = table(path)
    known = _by_name(recording)
    out: list[list[Span]] = [[] for _ in recording.series]
    start, end, series = _roles(path, names, rows)
    for line, row in rows:
        first = _time(path, line, row, start)
        last = first if end is None else _time(path, line, row, end)
        if last < first:
            raise ConfigError(
                f"{path}, line {line}: it ends before it starts: {row[start]!r} to {row[end or 0]!r}"
            )
        name = row[series].strip() if series is not None and series < len(row) else ""
        if name and name not in known:
            raise ConfigError(f"{path}, line {line}: there is no series {name!r}")
        whose = known[name] if name else range(len(out))
        if (count := count + len(whose)) > MOST:
            raise ConfigError(f"{path}, line {line}: more than {MOST:,} events of all series together")
        for i in whose:
            out[i].append((first, last))
    return [sorted(spans) for spans in out]


def _by_name(recording: Recording) -> dict[str, list[int]]:
    """Series by how they are written, and by their metric's name alone."""
    out: dict[str, list[int]] = {}
    for i, series in enumerate(recording.series):
        metric = dict(series.labels).get("__name__", "")
        for name in {naming.show(series.labels), metric}:
            out.setdefault(name, []).append(i)
    return out


def _roles(path: Path, names: Sequence[str] | None, rows: list[Row]) -> tuple[int, int | None, int | None]:
    """Columns of the start, the end and the series."""
    if names is None:
        width = len(rows[0][1]) if rows else 1
        return 0, 1 if width > 1 else None, 2 if width > 2 else None
    lower = [name.strip().lower() for name in names]

    def find(words: Sequence[str]) -> int | None:
        return next((lower.index(word) for word in words if word in lower), None)

    start, end, series = find(_START), find(_END), find(("series",))
    if start is None and end is None:
        start = find(_MOMENT)
    if start is None or (end is None and find(_START) is not None):
        raise ConfigError(
            f"{path}: expected a column `timestamp`, or `start` and `end`, found {', '.join(names)}"
        )
    return start, end, series


def _time(path: Path, line: int, row: Sequence[str], at: int) -> int:
    text = row[at] if at < len(row) else ""
    try:
        return int(times.parse([text], times.style_of(text))[0])
    except TimeError as exc:
        raise ConfigError(f"{path}, line {line}: {exc}") from exc
