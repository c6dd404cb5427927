"""Parquet in and out. The one file that imports pyarrow, which is an extra."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openanomaly.adapters.recordings import times
from openanomaly.adapters.recordings.columns import EVENTS, TIMES, Piece, Table, roles_of
from openanomaly.adapters.recordings.times import Style, TimeError
from openanomaly.core.recording import RecordingBuilder
from openanomaly.errors import ConfigError

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError:  # pragma: no cover - the environment of the tests has it
    pa = pq = None


def need() -> None:
    """
    Raises:
        ConfigError: pyarrow is not installed.
    """
    if pa is None:
        raise ConfigError("Parquet needs pyarrow: pip install 'openanomaly[backtest]'")


def read(path: Path, builder: RecordingBuilder) -> Style:
    """Give the samples of a file to `builder`; how it writes timestamps.

    Raises:
        ConfigError: it cannot be read, or pyarrow is not installed.
    """
    need()
    try:
        file = pq.ParquetFile(path)
        names = list(file.schema_arrow.names)
        kinds = [file.schema_arrow.field(i).type for i in range(len(names))]
    except (OSError, pa.ArrowException) as exc:
        raise ConfigError(f"cannot read {path}: {exc}") from exc
    numeric = [pa.types.is_integer(t) or pa.types.is_floating(t) or pa.types.is_decimal(t) for t in kinds]
    truth = [
        pa.types.is_boolean(t) or (pa.types.is_integer(t) and name.lower() in EVENTS)
        for t, name in zip(kinds, names, strict=True)
    ]
    if not any(name.strip().lower() in TIMES for name in names):
        times_at = next((i for i, t in enumerate(kinds) if pa.types.is_timestamp(t)), 0)
        names[times_at] = "timestamp"
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(f"{path}: there are two columns {twice!r}")
    roles = roles_of(str(path), names, numeric, truth)
    if builder.limit is not None:  # a small file may hold any number of rows
        builder.limit.check(
            len(roles.values) if not roles.labels else 1, file.metadata.num_rows * len(roles.values)
        )
    target, style = Table(path.stem, names, roles, builder), None
    try:
        for batch in file.iter_batches():
            time, found = _times(path, batch.column(roles.time), style)
            style = style or found
            target.add(
                Piece(
                    time,
                    [_floats(batch.column(i)) for i in roles.values],
                    [_texts(batch.column(i)) for i in roles.labels],
                    None if roles.event is None else _floats(batch.column(roles.event)) > 0,
                )
            )
    except (OSError, pa.ArrowException) as exc:
        raise ConfigError(f"cannot read {path}: {exc}") from exc
    if style is None:
        raise ConfigError(f"{path}: it has no samples")
    return style


def _times(path: Path, column: Any, style: Style | None) -> tuple[NDArray[np.int64], Style]:
    if column.null_count:
        raise ConfigError(f"{path}: {column.null_count} rows have no time")
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        found = column.cast(pa.timestamp("ms", tz=getattr(column.type, "tz", None)), safe=False)
        return found.cast(pa.int64()).to_numpy(), "iso"
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        values = column.to_numpy()
        try:
            style = style or times.style_of(str(values[0]))
            return times.of_numbers(values, style), style
        except TimeError as exc:
            raise ConfigError(f"{path}, row {exc.at + 1}: {exc}") from exc
    texts = _texts(column)
    try:
        style = style or times.style_of(texts[0])
        return times.parse(texts, style), style
    except TimeError as exc:
        raise ConfigError(f"{path}, row {exc.at + 1}: {exc}") from exc


def _floats(column: Any) -> NDArray[np.float64]:
    found: NDArray[np.float64] = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return found


def _texts(column: Any) -> Sequence[str]:
    return ["" if text is None else text for text in column.cast(pa.string()).to_pylist()]


class ParquetWriter:
    """Columns into a file, group of rows by group of rows."""

    def __init__(self, path: Path, has_series: bool) -> None:
        need()
        floats = ("value", "yhat", "yhat_lower", "yhat_upper", "anomaly_score")
        self._schema = pa.schema(
            [("timestamp", pa.timestamp("ms", tz="UTC"))]
            + ([("series", pa.dictionary(pa.int32(), pa.string()))] if has_series else [])
            + [(name, pa.float64()) for name in floats]
            + [("reason", pa.dictionary(pa.int32(), pa.string()))]
        )
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")

    def write(
        self,
        timestamp_ms: NDArray[np.int64],
        series: tuple[NDArray[np.int64], list[str]] | None,
        floats: Sequence[NDArray[np.floating]],
        reason: tuple[NDArray[np.int64], list[str]],
    ) -> None:
        """Append N rows; texts are indices and what they mean. NaN is null."""
        arrays = [pa.array(timestamp_ms, pa.timestamp("ms", tz="UTC"))]
        if series is not None:
            arrays.append(_dictionary(*series))
        arrays += [pa.array(x.astype(np.float64), pa.float64(), mask=np.isnan(x)) for x in floats]
        arrays.append(_dictionary(*reason))
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))

    def close(self) -> None:
        self._writer.close()


def _dictionary(index: NDArray[np.int64], texts: list[str]) -> Any:
    return pa.DictionaryArray.from_arrays(pa.array(index, pa.int32()), pa.array(texts, pa.string()))
