"""CSV in and out: separated by commas, semicolons or tabs, with a header or without."""

import csv
import io
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from openanomaly.adapters.recordings import times
from openanomaly.adapters.recordings.columns import NO, NOTHING, YES, Piece, Roles, Table, roles_of
from openanomaly.adapters.recordings.times import Style, TimeError
from openanomaly.core.recording import RecordingBuilder
from openanomaly.errors import ConfigError

_SEPARATORS = (",", ";", "\t")
_ROWS = 20_000
Row = tuple[int, list[str]]
"""The line that it ends with, and its cells."""


def read(path: Path, builder: RecordingBuilder) -> Style:
    """Give the samples of a file to `builder`; how it writes timestamps.

    Raises:
        ConfigError: it cannot be read; the message has file, line and value.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _read(path, _rows(path, file), builder)
    except OSError as exc:
        raise ConfigError(f"cannot read {path}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"cannot read {path}: it is not UTF-8") from exc


def read_text(text: str, name: str, builder: RecordingBuilder) -> Style:
    """The same for the text of a file, called `name` in errors.

    Raises:
        ConfigError: it cannot be read; the message has name, line and value.
    """
    path = Path(name)
    return _read(path, _rows(path, io.StringIO(text, newline="")), builder)


def table(path: Path) -> tuple[list[str] | None, list[Row]]:
    """Header and rows of a small file: of labels.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(_rows(path, file))
    except OSError as exc:
        raise ConfigError(f"cannot read {path}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"cannot read {path}: it is not UTF-8") from exc
    if rows and _is_header(rows[0][1]):
        return rows[0][1], rows[1:]
    return None, rows


def _rows(path: Path, lines: Iterator[str]) -> Iterator[Row]:
    """Rows that are not empty."""
    first = next(lines, "")
    separator = max(_SEPARATORS, key=first.count)
    reader = csv.reader(chain([first], lines), delimiter=separator, skipinitialspace=True)
    try:
        for row in reader:
            if any(row):
                yield reader.line_num, row
    except csv.Error as exc:
        raise ConfigError(f"{path}, line {reader.line_num}: {exc}") from exc


def _is_header(row: Sequence[str]) -> bool:
    """Whether no cell is a time or a number, as in no row of samples."""
    for cell in row:
        try:
            times.style_of(cell)
        except TimeError:
            continue
        return False
    return True


def _read(path: Path, rows: Iterator[Row], builder: RecordingBuilder) -> Style:
    block = list(islice(rows, _ROWS))
    names = block[0][1] if block and _is_header(block[0][1]) else None
    if names is not None:
        block = block[1:]
    if not block:
        raise ConfigError(f"{path}: it has no samples")
    count = len(names) if names is not None else len(block[0][1])
    columns = _columns(path, block, count)
    numeric = [_is_numeric(column) for column in columns]
    truth = [all(cell.lower() in YES | NO or not cell for cell in column) for column in columns]
    roles = roles_of(str(path), names, numeric, truth)
    try:
        style = times.style_of(block[0][1][roles.time])
    except TimeError as exc:
        raise ConfigError(f"{path}, line {block[0][0]}: {exc}") from exc
    target = Table(path.stem, names, roles, builder)
    while block:
        target.add(_piece(path, block, columns, roles, style))
        block = list(islice(rows, _ROWS))
        columns = _columns(path, block, count)
    return style


def _columns(path: Path, block: list[Row], count: int) -> list[tuple[str, ...]]:
    """Cells by column; a row that is short lacks its last cells."""
    for line, row in block:
        if len(row) > count:
            raise ConfigError(f"{path}, line {line}: {len(row)} cells, expected {count}")
        if len(row) < count:
            row.extend([""] * (count - len(row)))
    return list(zip(*(row for _, row in block), strict=True))


def _piece(path: Path, block: list[Row], columns: list[tuple[str, ...]], roles: Roles, style: Style) -> Piece:
    try:
        time = times.parse(columns[roles.time], style)
    except TimeError as exc:
        raise ConfigError(f"{path}, line {block[exc.at][0]}: {exc}") from exc
    return Piece(
        time,
        [_numbers(path, block, columns[i]) for i in roles.values],
        [columns[i] for i in roles.labels],
        None if roles.event is None else _truth(path, block, columns[roles.event]),
    )


def _numbers(path: Path, block: list[Row], cells: Sequence[str]) -> NDArray[np.float64]:
    try:
        return np.array(list(map(float, cells)))
    except ValueError:
        pass
    out = np.empty(len(cells))
    for i, cell in enumerate(cells):
        try:
            out[i] = float(cell)
        except ValueError:
            if cell.strip().lower() not in NOTHING:
                raise ConfigError(f"{path}, line {block[i][0]}: {cell!r} is no number") from None
            out[i] = np.nan
    return out


def _truth(path: Path, block: list[Row], cells: Sequence[str]) -> NDArray[np.bool_]:
    for (line, _), cell in zip(block, cells, strict=True):
        if cell and cell.lower() not in YES | NO:
            raise ConfigError(f"{path}, line {line}: {cell!r} is no label: expected 0 or 1, true or false")
    return np.array([cell.lower() in YES for cell in cells])


def _is_numeric(cells: Sequence[str]) -> bool:
    """Whether a column is of numbers: the first one that is not missing is one."""
    for cell in cells:
        if cell.strip().lower() not in NOTHING:
            try:
                float(cell)
            except ValueError:
                return False
            return True
    return True
