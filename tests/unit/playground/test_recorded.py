"""What pipelines are tried on: the example, and uploaded files."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.pipelines.selector import Selector
from openanomaly.errors import ConfigError
from openanomaly.playground import recorded
from openanomaly.settings import PlaygroundSettings

LIMITS = PlaygroundSettings()
CSV = b"time,load,other\n" + b"".join(b"%d,%d,%d\n" % (1_767_225_600 + 60 * i, i % 7, i) for i in range(300))


def test_the_example_has_known_events_on_series_of_its_own() -> None:
    found = recorded.example()
    events = found.recording.events
    assert events is not None
    assert sum(map(len, events)) == 15
    assert max(map(len, events)) == 1
    assert len(events) == len(found.recording.series) == len({s.labels for s in found.recording.series})
    for series, spans in zip(found.recording.series, events, strict=True):
        assert (np.diff(series.timestamp_ms) > 0).all()
        for first, last in spans:
            assert series.timestamp_ms[0] < first <= last <= series.timestamp_ms[-1]


def test_a_file_has_series_and_a_step() -> None:
    found = recorded.of_file("fleet.csv", CSV, None, LIMITS)
    assert [dict(s.labels)["__name__"] for s in found.recording.series] == ["load", "other"]
    assert (found.step_ms, found.recording.samples, found.by_end) == (60_000, 600, False)
    assert found.recording.events is None


def test_a_parquet_file_is_read_as_one() -> None:
    body = io.BytesIO()
    pq.write_table(pa.table({"time": [1_767_225_600 + 60 * i for i in range(5)], "load": [1.0] * 5}), body)
    assert recorded.of_file("Fleet.PARQUET", body.getvalue(), None, LIMITS).recording.samples == 5


@pytest.mark.parametrize(
    ("name", "series"),
    [("errors_total.csv", "errors_total"), ("a b.csv", "a_b"), ("../x/up.csv", "up"), ("é.csv", "é")],
)
def test_a_file_with_one_column_names_its_series(name: str, series: str) -> None:
    found = recorded.of_file(name, b"time,value\n1767225600,1\n1767225660,2\n", None, LIMITS)
    assert [dict(s.labels)["__name__"] for s in found.recording.series] == [series]


def test_a_small_file_of_many_rows_is_refused_before_it_is_read() -> None:
    body = io.BytesIO()
    rows = 2_000_000
    pq.write_table(pa.table({"time": [1_767_225_600] * rows, "load": [1.0] * rows}), body)
    assert len(body.getvalue()) < 100_000
    with pytest.raises(ConfigError, match=r"2,000,000 samples or more, at most playground\.samples_limit"):
        recorded.of_file("x.parquet", body.getvalue(), None, LIMITS)


@pytest.mark.parametrize("times", [[float("nan"), 1.0], [2.0**62, 1.0], [1e300, 1.0]])
def test_times_of_parquet_that_are_none_are_told(times: list[float]) -> None:
    body = io.BytesIO()
    pq.write_table(pa.table({"time": times, "load": [1.0, 2.0]}), body)
    with pytest.raises(ConfigError, match=r"x\.parquet, row 1.*no timestamp"):
        recorded.of_file("x.parquet", body.getvalue(), None, LIMITS)


def test_two_columns_of_one_name_are_told() -> None:
    body = io.BytesIO()
    column = pa.array([1_767_225_600.0, 1_767_225_660.0])
    pq.write_table(pa.table([column, column, column], names=["time", "load", "load"]), body)
    with pytest.raises(ConfigError, match="two columns 'load'"):
        recorded.of_file("x.parquet", body.getvalue(), None, LIMITS)


def test_everything_is_not_asked_of_a_database() -> None:
    with pytest.raises(ConfigError, match="is everything"):
        recorded.of_database(None, Pipeline(name="x"), 0, 3_600_000, LIMITS, lambda: None)  # type: ignore


@pytest.mark.parametrize(
    ("selector", "asked"),
    [
        ("up", 'up{for=""}'),
        ("up{}", 'up{for=""}'),
        ('{job="a"}', '{job="a",for=""}'),
        ('up{job="a", } ', 'up{job="a",for=""}'),
        ('{a="}"}', '{a="}",for=""}'),
    ],
)
def test_our_own_scores_are_not_asked_for(selector: str, asked: str) -> None:
    assert recorded.not_ours(selector) == asked
    assert Selector.parse(asked)


def test_a_database_is_asked_for_the_selector_without_them() -> None:
    class Asked(Exception):
        pass

    class Client:
        shown = "http://db"

        def raw_query(self, selector: str, start_ms: int, end_ms: int) -> None:
            raise Asked(selector)

    pipeline = Pipeline(name="x", selector="up")
    with pytest.raises(Asked, match=r'^up\{for=""\}$'):
        recorded.of_database(Client(), pipeline, 0, 3_600_000, LIMITS, lambda: None)  # type: ignore[arg-type]


def test_known_events_are_those_of_its_series() -> None:
    known = b"start,end,series\n1767225660,1767225720,load\n"
    found = recorded.of_file("fleet.csv", CSV, known, LIMITS)
    assert found.recording.events == [[(1_767_225_660_000, 1_767_225_720_000)], []]


@pytest.mark.parametrize(
    ("content", "known", "limits", "message"),
    [
        (b"", None, {}, r"^fleet\.csv"),
        (b"time,load\n1767225600,1\n1767225660,x1\n", None, {}, r"^fleet\.csv, line 3.*x1"),
        (b"\xff\xfe", None, {}, r"^.*fleet\.csv.*UTF-8"),
        (
            CSV,
            b"timestamp,series\n1767225660,lood\n",
            {},
            r"^known events, line 2.*'lood'",
        ),
        (CSV, None, {"series_limit": 1}, r"2 series or more, at most playground\.series_limit=1"),
        (CSV, None, {"samples_limit": 599}, r"600 samples or more, at most playground\.samples_limit=599"),
    ],
)
def test_what_cannot_be_used_is_told_by_the_names_of_its_owner(
    content: bytes, known: bytes | None, limits: dict[str, int], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as told:
        recorded.of_file("fleet.csv", content, known, PlaygroundSettings.model_validate(limits))
    assert "/" not in str(told.value)


def test_a_name_is_no_path(tmp_path_factory: pytest.TempPathFactory) -> None:
    assert recorded.of_file("../../etc/passwd", CSV, None, LIMITS).recording.samples == 600
