"""Scores into one file, CSV or Parquet: nothing is there under its name until all of it is."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from openanomaly.adapters.recordings import times
from openanomaly.adapters.recordings.parquet_file import ParquetWriter
from openanomaly.adapters.recordings.times import Style
from openanomaly.core.scoring.reason import Reason
from openanomaly.core.services.backtest import ScoredSteps
from openanomaly.errors import ConfigError

HEADER = ("timestamp", "value", "yhat", "yhat_lower", "yhat_upper", "anomaly_score", "reason")
_REASONS = [""] + [Reason(i).text if i in Reason._value2member_map_ else "" for i in range(max(Reason) + 1)]
"""Words by the number of a reason and one more; none in warm-up."""


class _Writer(Protocol):
    def write(
        self,
        timestamp_ms: NDArray[np.int64],
        series: tuple[NDArray[np.int64], list[str]] | None,
        floats: Sequence[NDArray[np.floating]],
        reason: tuple[NDArray[np.int64], list[str]],
    ) -> None: ...

    def close(self) -> None: ...


class ScoreFile:
    """Takes scored steps; rows are in the order of time, those of one time in that of the series."""

    def __init__(self, path: Path, names: Sequence[str], style: Style, by_end: bool = False) -> None:
        """
        Args:
            names: of the series; with more than one of them the file has a column `series`.
            style: how timestamps are written in a CSV.
            by_end: a row has the time of the end of its step, and not that of its newest sample.

        Raises:
            ConfigError: the file cannot be written, or needs a package that is not installed.
        """
        self._path = path
        self._part = path.with_name(f".{path.name}.part")
        self._names = list(names)
        self._by_end = by_end
        has_series = len(names) > 1
        with _told(path):
            self._writer: _Writer = (
                ParquetWriter(self._part, has_series)
                if path.suffix.lower() == ".parquet"
                else _CsvWriter(self._part.open("w", encoding="utf-8"), has_series, style)
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The file is in its place, or gone after an error."""
        with _told(self._path):
            self._writer.close()
            if kind is None:
                os.replace(self._part, self._path)
            else:
                self._part.unlink(missing_ok=True)

    def add(self, steps: ScoredSteps) -> None:
        """Append what is said of a chunk of time."""
        stamp = steps.end_ms if self._by_end else steps.sample_ms
        order = np.lexsort((steps.series, stamp))
        judged = steps.judged
        reason = np.where(np.isnan(judged.score), 0, judged.reason.astype(np.int64) + 1)
        floats = (steps.value, steps.expected, judged.lower, judged.upper, judged.score)
        with _told(self._path):
            self._writer.write(
                stamp[order],
                (steps.series[order], self._names) if len(self._names) > 1 else None,
                [x[order] for x in floats],
                (reason[order], _REASONS),
            )


class _CsvWriter:
    def __init__(self, file: IO[str], has_series: bool, style: Style) -> None:
        self._file = file
        self._style = style
        header = [HEADER[0], "series", *HEADER[1:]] if has_series else HEADER
        file.write(",".join(header) + "\n")

    def write(
        self,
        timestamp_ms: NDArray[np.int64],
        series: tuple[NDArray[np.int64], list[str]] | None,
        floats: Sequence[NDArray[np.floating]],
        reason: tuple[NDArray[np.int64], list[str]],
    ) -> None:
        columns = [times.show(timestamp_ms, self._style)]
        columns += [_texts(*series)] if series is not None else []
        columns += [_numbers(x) for x in floats]
        columns.append(_texts(*reason))
        self._file.writelines(map("%s\n".__mod__, map(",".join, zip(*columns, strict=True))))

    def close(self) -> None:
        self._file.close()


def _numbers(values: NDArray[np.floating]) -> list[str]:
    """As few digits as give the same number again; nothing for NaN."""
    shown = map("%.9g".__mod__, values.tolist()) if values.dtype == np.float32 else map(repr, values.tolist())
    return ["" if text == "nan" else text for text in shown]


def _texts(index: NDArray[np.int64], texts: Sequence[str]) -> list[str]:
    quoted = [
        f'"{text.replace(chr(34), chr(34) * 2)}"' if set(text) & set(',"\n\r') else text for text in texts
    ]
    return list(map(quoted.__getitem__, index.tolist()))


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise ConfigError(f"cannot write {path}: {exc.strerror or exc}") from exc
