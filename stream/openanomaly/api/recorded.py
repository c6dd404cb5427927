"""Recorded series that a request brings along, as columns of JSON or as CSV."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openanomaly.api.invalid import Invalid, shown
from openanomaly.api.problems import ProblemError
from openanomaly.core.pipelines.selector import Selector
from openanomaly.core.ports.tsdb_client import Samples
from openanomaly.core.series import Labels, canonical, decode_labels
from openanomaly.core.services.backtest import RecordedSeries
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
    """Series of CSV: a head of `timestamp_ms` and a series each, such as `up{job="api"}`; empty is missing.

    Raises:
        ProblemError: they are none.
    """
    if not isinstance(text, str):
        raise wrong("/csv", "expected a string")
    try:
        head, *rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except (csv.Error, ValueError) as exc:
        raise wrong("/csv", f"it is no CSV with a head: {exc}") from exc
    if head[0].strip() != "timestamp_ms" or len(head) < 2:
        raise wrong("/csv", "line 1: expected timestamp_ms and at least one series", ",".join(head))
    labels = [_labels_of_text(f"line 1, column {i}", name) for i, name in enumerate(head[1:], 2)]
    times, columns = [], [[math.nan] * len(rows) for _ in labels]
    for at, row in enumerate(rows):
        if len(row) != len(head):
            raise wrong("/csv", f"row {at + 2}: expected {len(head)} columns, found {len(row)}")
        if not (row[0].strip().isascii() and row[0].strip().isdecimal() and len(row[0]) < 20):
            raise wrong("/csv", f"row {at + 2}: expected a timestamp in ms", row[0])
        times.append(int(row[0]))
        for column, cell in zip(columns, row[1:], strict=True):
            try:
                column[at] = float(cell) if cell.strip() else math.nan
            except ValueError:
                column[at] = math.inf
            if math.isinf(column[at]):
                raise wrong("/csv", f"row {at + 2}: expected a number", cell)
    known = _times("/csv", times)
    return [_series(name, known, column) for name, column in zip(labels, columns, strict=True)]


def of_samples(samples: Samples) -> list[RecordedSeries]:
    """Series that a database answered."""
    edges = np.searchsorted(samples.row, np.arange(len(samples.blocks) + 1))
    return [
        RecordedSeries(decode_labels(block), samples.timestamp_ms[start:stop], samples.value[start:stop])
        for block, start, stop in zip(samples.blocks, edges[:-1].tolist(), edges[1:].tolist(), strict=True)
        if stop > start
    ]


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
        is_whole = isinstance(time, int) or (isinstance(time, float) and time.is_integer())
        if isinstance(time, bool) or not is_whole or not 0 <= time <= _LATEST_MS:
            raise wrong(f"{pointer}/{i}", f"expected ms since 1970, at most {_LATEST_MS}", time)
        if time <= last:
            raise wrong(f"{pointer}/{i}", f"expected more than {last}, the one before", time)
        last = int(time)
    return np.array(values, np.int64)


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


def _labels_of_text(place: str, text: str) -> Labels:
    try:
        matchers = Selector.parse(text).matchers
    except ConfigError as exc:
        raise wrong("/csv", f"{place}: {exc}", text) from exc
    labels = {matcher.name: matcher.value for matcher in matchers}
    if any(matcher.operator != "=" for matcher in matchers) or len(labels) < len(matchers):
        raise wrong("/csv", f"{place}: expected the labels of one series, each once and with =", text)
    return _canonical("/csv", labels)


def _canonical(pointer: str, labels: dict[str, str]) -> Labels:
    try:
        return canonical(labels.items())
    except MalformedRequestError as exc:
        raise wrong(pointer, str(exc)) from exc
