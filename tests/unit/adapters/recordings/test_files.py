"""What is read of CSV and Parquet files, and what is said of those that cannot be read."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from openanomaly.adapters.recordings import files, labels, naming, parquet_file
from openanomaly.core.recording import Recording
from openanomaly.errors import ConfigError

Found = dict[str, list[tuple[int, float]]]


def read(path: Path) -> tuple[Found, Recording]:
    recording, _ = files.read(path)
    return {
        naming.show(s.labels): list(zip((s.timestamp_ms // 1000).tolist(), s.value.tolist(), strict=True))
        for s in recording.series
    }, recording


def csv(folder: Path, text: str, name: str = "load.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


TWO = [(60, 1.5), (120, 2.0)]


@pytest.mark.parametrize(
    "text",
    [
        "timestamp,value\n60,1.5\n120,2\n",
        "60,1.5\n120,2\n",
        "\ufefftime;usage\r\n60;1.5\r\n120;2\r\n",
        "ds\ty\n1970-01-01 00:01:00\t1.5\n\n1970-01-01 00:02:00\t2\n",
        'value,"timestamp"\n1.5,1970-01-01T00:01:00Z\n2,1970-01-01T01:02:00+01:00\n',
        "timestamp,value,yhat,yhat_lower,yhat_upper,anomaly_score,reason\n60,1.5,,,,,\n120,2,1,0,2,0.5,normal\n",
        "timestamp,value\n120,2\n60,1.5\n120,7\n",
    ],
)
def test_any_table_of_two_columns(tmp_path: Path, text: str) -> None:
    path = csv(tmp_path, text)
    assert read(path)[0] == {"load": TWO}


def test_what_is_out_of_order_or_twice_there_is_counted(tmp_path: Path) -> None:
    _, recording = read(csv(tmp_path, "timestamp,value\n120,2\n60,1.5\n120,7\n120,8\n"))
    assert (recording.unsorted, recording.duplicates) == (1, 2)


def test_a_wide_table_has_a_series_in_each_column(tmp_path: Path) -> None:
    found, _ = read(csv(tmp_path, 'time,a,"b{x=""1""}"\n60,1,10\n120,,20\n180,nan,NULL\n240,4,40\n'))
    assert found == {"a": [(60, 1), (240, 4)], 'b{x="1"}': [(60, 10), (120, 20), (240, 40)]}


def test_a_missing_value_of_a_single_series_is_a_sample_without_a_value(tmp_path: Path) -> None:
    found, _ = read(csv(tmp_path, "timestamp,value\n60,\n120,2\n"))
    assert [t for t, _ in found["load"]] == [60, 120]
    assert math.isnan(found["load"][0][1])


def test_a_long_table_has_a_series_for_each_set_of_labels(tmp_path: Path) -> None:
    text = "timestamp,host,value,disk\n60,a,1,\n60,b,2,sda\n120,a,3,\n120,b,4,sda\n"
    found, _ = read(csv(tmp_path, text))
    assert found == {'{host="a"}': [(60, 1), (120, 3)], '{disk="sda",host="b"}': [(60, 2), (120, 4)]}
    found, _ = read(csv(tmp_path, "when,host,cpu\n60,a,1\n60,b,2\n"))
    assert found == {'{host="a"}': [(60, 1)], '{host="b"}': [(60, 2)]}


def test_a_column_of_truth_is_what_is_known(tmp_path: Path) -> None:
    _, recording = read(
        csv(tmp_path, "timestamp,value,is_anomaly\n60,1,0\n120,2,1\n180,3,1\n240,4,0\n300,5,true\n")
    )
    assert recording.events == [[(120_000, 180_000), (300_000, 300_000)]]
    assert read(csv(tmp_path, "timestamp,value\n60,1\n"))[1].events is None


def test_a_column_called_label_that_holds_names_is_one(tmp_path: Path) -> None:
    found, recording = read(csv(tmp_path, "timestamp,label,value\n60,x,1\n60,y,2\n"))
    assert set(found) == {'{label="x"}', '{label="y"}'}
    assert recording.events is None


def test_many_rows_come_in_blocks(tmp_path: Path) -> None:
    rows = [f"{60 * i},{i % 7},{'ab'[i % 2]}" for i in range(50_001)]
    _, recording = read(csv(tmp_path, "timestamp,value,host\n" + "\n".join(rows)))
    assert [len(s.value) for s in recording.series] == [25_001, 25_000]
    assert recording.series[1].value[:3].tolist() == [1.0, 3.0, 5.0]


def test_a_folder_is_all_its_files(tmp_path: Path) -> None:
    csv(tmp_path, "60,1\n", "a.csv")
    csv(tmp_path, "60\t2\n", "b.tsv")
    csv(tmp_path, "no table", "notes.txt")
    csv(tmp_path, "timestamp,host,value\n60,x,1\n", "long1.csv")
    csv(tmp_path, "timestamp,host,value\n120,x,2\n", "long2.csv")
    pq.write_table(pa.table({"timestamp": [60], "value": [3.0]}), tmp_path / "c.parquet")
    assert read(tmp_path)[0] == {
        "a": [(60, 1)],
        "b": [(60, 2)],
        "c": [(60, 3)],
        '{host="x"}': [(60, 1), (120, 2)],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no samples"),
        ("timestamp,value\n", "has no samples"),
        ("timestamp\n60\n", "found 1 column"),
        ("timestamp,value\n60,1\n120,x7\n", "line 3: 'x7' is no number"),
        ("timestamp,value\n60,1\nsoon,2\n", "line 3: 'soon' is no timestamp"),
        ("timestamp,value\nsoon,2\n", "line 2: 'soon' is no timestamp"),
        ("timestamp,value\n60,1\n120,1,5\n", "line 3: 3 cells, expected 2"),
        ("60,a\n", "column 2 is not of numbers"),
        ("when,host,cpu,mem\n60,a,1,2\n", "'host' has text: name one `value`"),
        ("when,host\n60,a\n", "no column has numbers"),
        ("timestamp,value\n60,a\n", "'value' has no numbers"),
        (
            "timestamp,value,is_anomaly\n60,1,0\n120,2,1\n" + "180,3,0\n" * 20_000 + "240,4,maybe\n",
            "line 20004: 'maybe' is no label",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    path = csv(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        files.read(path)
    assert message in str(caught.value)
    assert "load.csv" in str(caught.value)


def test_what_is_no_file_or_no_text_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*none.csv: No such file"):
        files.read(tmp_path / "none.csv")
    (tmp_path / "odd.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        files.read(tmp_path / "odd.csv")
    (tmp_path / "odd.parquet").write_bytes(b"PAR1")
    with pytest.raises(ConfigError, match=r"cannot read .*odd.parquet"):
        files.read(tmp_path / "odd.parquet")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no file in it ends with"):
        files.read(tmp_path / "empty")


@pytest.mark.parametrize(
    "times",
    [
        pa.array([60, 120]),
        pa.array([60.0, 120.0]),
        pa.array(["1970-01-01T00:01:00Z", "1970-01-01T00:02:00Z"]),
        pa.array([60_000, 120_000]).cast(pa.timestamp("ms")),
        pa.array([60_000_000_000, 120_000_000_000]).cast(pa.timestamp("ns", tz="Europe/Berlin")),
    ],
)
def test_parquet_has_times_of_every_type(tmp_path: Path, times: pa.Array) -> None:
    table = pa.table({"value": pa.array([1.5, None]), "at": times, "host": pa.array(["a", None])})
    pq.write_table(table.rename_columns(["value", "timestamp", "host"]), tmp_path / "x.parquet")
    found, _ = read(tmp_path / "x.parquet")
    assert found['{host="a"}'] == [(60, 1.5)]
    assert [t for t, _ in found["x"]] == [120]


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_file, "pa", None)
    with pytest.raises(ConfigError, match=r"pip install 'openanomaly\[backtest\]'"):
        files.read(tmp_path / "x.parquet")


def test_parquet_of_several_columns(tmp_path: Path) -> None:
    times = pa.array([60_000, 120_000]).cast(pa.timestamp("ms"))
    pq.write_table(
        pa.table({"a": pa.array([1, 2]), "t": times, "b": pa.array([3.0, None])}), tmp_path / "x.parquet"
    )
    assert read(tmp_path / "x.parquet")[0] == {"a": [(60, 1), (120, 2)], "b": [(60, 3)]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("timestamp\n60\n180\n", [[(60_000, 60_000), (180_000, 180_000)]] * 2),
        ("start,end\n60,120\n", [[(60_000, 120_000)]] * 2),
        ("start,end,series\n60,120,a\n", [[(60_000, 120_000)], []]),
        ('series,timestamp\n"b{x=""1""}",60\n', [[], [(60_000, 60_000)]]),
        ("60,120,b\n", [[], [(60_000, 120_000)]]),
        ("60\n", [[(60_000, 60_000)]] * 2),
    ],
)
def test_labels(tmp_path: Path, text: str, expected: list) -> None:
    recording, _ = files.read(csv(tmp_path, 'time,a,"b{x=""1""}"\n60,1,10\n120,2,20\n'))
    assert labels.read(csv(tmp_path, text, "labels.csv"), recording) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("start,end\n60,30\n", "line 2: it ends before it starts"),
        ("start,end\n60,\n", "line 2: '' is no timestamp"),
        ("timestamp,series\n60,c\n", "line 2: there is no series 'c'"),
        ("when\n60\n", "expected a column `timestamp`"),
        ("start\n60\n", "expected a column `timestamp`, or `start` and `end`"),
    ],
)
def test_labels_that_cannot_be(tmp_path: Path, text: str, message: str) -> None:
    recording, _ = files.read(csv(tmp_path, "time,a,b\n60,1,10\n"))
    with pytest.raises(ConfigError, match=message):
        labels.read(csv(tmp_path, text, "labels.csv"), recording)


@pytest.mark.parametrize(
    "series",
    [
        (("__name__", "up"),),
        (("__name__", "up"), ("job", 'a"b\\c\nd,e={}')),
        (("a", "1"), ("b", "2")),
        naming.NAMELESS,
    ],
)
def test_a_series_is_read_as_it_was_shown(series: tuple) -> None:
    assert naming.read(naming.show(series)) == series


@pytest.mark.parametrize("text", ["cpu usage %", "a{b", "a{b=1}", 'a{b="1" c="2"}', "{x}"])
def test_what_is_no_series_is_a_name(text: str) -> None:
    assert naming.read(text) == (("__name__", text),)


def test_values_keep_every_bit(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal(100) * 10.0 ** np.arange(-50, 50)
    path = csv(tmp_path, "\n".join(f"{60 * i},{v!r}" for i, v in enumerate(values.tolist())))
    assert files.read(path)[0].series[0].value.tolist() == values.tolist()
