"""Recorded series that a request brings along, as columns of JSON or as CSV."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openanomaly.adapters.recordings import csv_file
from openanomaly.api.invalid import Invalid, shown
from openanomaly.api.problems import ProblemError
from openanomaly.core.recording import RecordedSeries, RecordingBuilder
from openanomaly.core.series import Labels, canonical
from openanomaly.errors import ConfigError, MalformedRequestError

_LATEST_MS = (1 << 42) - 1


def wrong(pointer: str, detail: str, value: Any = None) -> ProblemError:
    found = Invalid(pointer=pointer, detail=detail, value=shown(value))
    return ProblemError(422, str(found), [found])


def of_columns(value: Any) -> list[RecordedSeries]:
    """Series of `{"timestamp_ms": [...], "series": [{"labels": {...}, "value": [...]}]}`.

    Raises:
        ProblemError: they are none.
    """
    columns = _object("/columns", value, ("timestamp_ms", "series"))
    times = _times("/columns/timestamp_ms", columns["timestamp_ms"])
    if not isinstance(columns["series"], list) or not columns["series"]:
        raise wrong("/columns/series", "expected an array of at least one series")
    out = []
    for i, each in enumerate(columns["series"]):
        here = f"/columns/series/{i}"
        series = _object(here, each, ("labels", "value"))
        labels = _labels(f"{here}/labels", series["labels"])
        values = series["value"]
        if not isinstance(values, list) or len(values) != len(times):
            raise wrong(
                f"{here}/value", f"expected an array of {len(times)}, as many as there are timestamps"
            )
        for j, number in enumerate(values):
            is_number = isinstance(number, int | float) and not isinstance(number, bool)
            if number is not None and not (is_number and _is_float(number)):
                raise wrong(f"{here}/value/{j}", "expected a number or null", number)
        out.append(_series(labels, times, [math.nan if v is None else float(v) for v in values]))
    return out


def of_csv(text: Any) -> list[RecordedSeries]:
    """Series of CSV, as `openanomaly backtest` reads it.

    Raises:
        ProblemError: they are none.
    """
    if not isinstance(text, str):
        raise wrong("/csv", "expected a string")
    builder = RecordingBuilder()
    try:
        csv_file.read_text(text, "csv", builder)
    except ConfigError as exc:
        raise wrong("/csv", str(exc)) from exc
    return builder.build().series


def _series(labels: Labels, times: NDArray[np.int64], values: Sequence[float]) -> RecordedSeries:
    value = np.array(values, np.float64)
    there = ~np.isnan(value)
    return RecordedSeries(labels, times[there], value[there])


def _object(pointer: str, value: Any, names: Iterable[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise wrong(pointer, "expected an object", value)
    for name in names:
        if name not in value:
            raise wrong(f"{pointer}/{name}", "it is missing")
    for name in value:
        if name not in names:
            raise wrong(f"{pointer}/{name}", "there is nothing of that name here")
    return value


def _times(pointer: str, values: Any) -> NDArray[np.int64]:
    if not isinstance(values, list) or not values:
        raise wrong(pointer, "expected at least one timestamp")
    last = -1
    for i, time in enumerate(values):
        if moment(f"{pointer}/{i}", time) <= last:
            raise wrong(f"{pointer}/{i}", f"expected more than {last}, the one before", time)
        last = int(time)
    return np.array(values, np.int64)


def moment(pointer: str, value: Any) -> int:
    """A time in ms since 1970.

    Raises:
        ProblemError: it is none.
    """
    is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not is_whole or not 0 <= value <= _LATEST_MS:
        raise wrong(pointer, f"expected ms since 1970, at most {_LATEST_MS}", value)
    return int(value)


def _is_float(number: float) -> bool:
    try:
        return math.isfinite(float(number))
    except OverflowError:
        return False


def _labels(pointer: str, value: Any) -> Labels:
    if not isinstance(value, dict) or not value:
        raise wrong(pointer, "expected an object of at least one label", value)
    for name, text in value.items():
        if not name or not isinstance(text, str):
            raise wrong(f"{pointer}/{name}", "expected a name, and a string", text)
    return _canonical(pointer, value)


def _canonical(pointer: str, labels: dict[str, str]) -> Labels:
    try:
        return canonical(labels.items())
    except MalformedRequestError as exc:
        raise wrong(pointer, str(exc)) from exc
