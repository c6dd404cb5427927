"""`openanomaly backtest` on files: what it writes, prints and refuses."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from openanomaly import cli
from openanomaly.adapters.engines import make_engines
from openanomaly.adapters.recordings import files
from openanomaly.commands.backtest_pipeline import seconds
from openanomaly.commands.progress import Progress
from openanomaly.core.frames import SampleFrame
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.series import encode_labels
from openanomaly.core.series_column import SeriesColumn
from openanomaly.core.services.local import LocalScoring

START_S, STEP_S, STEPS, SPIKE = 1_767_225_600, 300, 600, 500


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`one.csv`, and `wide.csv` of two series, with a spike each."""
    root = tmp_path_factory.mktemp("backtest")
    rng = np.random.default_rng(1)
    a = 10 + np.sin(np.arange(STEPS) / 20) + 0.1 * rng.standard_normal(STEPS)
    b = 1e6 + 100 * rng.standard_normal(STEPS)
    a[SPIKE] += 12
    b[SPIKE + 20] -= 3000
    times = (START_S + STEP_S * np.arange(STEPS)).tolist()
    rows = list(zip(times, a.tolist(), b.tolist(), strict=True))
    (root / "one.csv").write_text("".join(f"{t},{x!r}\n" for t, x, _ in rows))
    (root / "wide.csv").write_text("time,a,b\n" + "".join(f"{t},{x!r},{y!r}\n" for t, x, y in rows))
    (root / "labels.csv").write_text(f"timestamp\n{START_S + STEP_S * SPIKE}\n")
    return root


def backtest(*arguments: object) -> int:
    return cli.main(["backtest", "--model", "statistical", *map(str, arguments)])


def rows_of(path: Path) -> list[list[str]]:
    return [line.split(",") for line in path.read_text().splitlines()]


def test_the_simplest_call_scores_every_step_as_the_stream_does(folder: Path, tmp_path: Path) -> None:
    assert backtest(folder / "one.csv", "--out", tmp_path / "scores.csv") == 0
    header, *rows = rows_of(tmp_path / "scores.csv")
    assert header == ["timestamp", "value", "yhat", "yhat_lower", "yhat_upper", "anomaly_score", "reason"]
    assert [int(row[0]) for row in rows] == [START_S + STEP_S * i for i in range(STEPS)]
    assert all(row[5:] == ["", ""] for row in rows[:144]), "warm-up"
    assert rows[SPIKE][6] == "further above its forecast than it was in memory"
    assert list(tmp_path.iterdir()) == [tmp_path / "scores.csv"]

    pipeline = Pipeline(name="x", step_s=STEP_S, model="statistical")
    stream = LocalScoring([pipeline], make_engines(["statistical"], 1), 10)
    series = files.read(folder / "one.csv")[0].series[0]
    column, zero = SeriesColumn.of([encode_labels(series.labels)]), np.zeros(1, np.uint32)
    expected = {}
    for t, v in zip(series.timestamp_ms, series.value, strict=True):
        for f in stream.put(SampleFrame(column, zero, np.array([t]), np.array([v]), int(t)), int(t)):
            at = int(f.timestamp_ms[0]) // 1000 - STEP_S
            expected[at] = (f.score[0], *f.expected[0], f.value[0])
    found = {
        int(r[0]): (np.float32(r[5]), *(float(x or "nan") for x in r[2:5]), float(r[1])) for r in rows if r[5]
    }
    assert len(expected) == STEPS - 144 - 1
    for at, what in expected.items():
        np.testing.assert_array_equal(found[at], what)


def test_csv_and_parquet_say_the_same_and_are_read_again(folder: Path, tmp_path: Path) -> None:
    assert backtest(folder / "wide.csv", "--out", tmp_path / "s.csv") == 0
    assert backtest(folder / "wide.csv", "--out", tmp_path / "s.parquet") == 0
    header, *rows = rows_of(tmp_path / "s.csv")
    assert header[:2] == ["timestamp", "series"]
    table = pq.read_table(tmp_path / "s.parquet").to_pydict()
    assert list(table) == header
    assert len(rows) == len(table["series"]) == 2 * STEPS
    assert [row[1] for row in rows] == table["series"] == ["a", "b"] * STEPS
    assert [int(row[0]) for row in rows] == [round(t.timestamp()) for t in table["timestamp"]]
    for i, name in enumerate(header[2:7], 2):
        kind = np.float32 if name == "anomaly_score" else float
        assert [kind(row[i]) if row[i] else None for row in rows] == table[name]
    # What was written is a recording: its scores are the same once more.
    for again in ("s.csv", "s.parquet"):
        assert backtest(tmp_path / again, "--out", tmp_path / "again.csv") == 0
        assert [r[1:] for r in rows_of(tmp_path / "again.csv")] == [
            r[1:] for r in rows_of(tmp_path / "s.csv")
        ]


def test_labels_give_figures(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert backtest(folder / "one.csv", "--labels", folder / "labels.csv", "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["steps"] == STEPS
    assert figures["labels"]["events"] == figures["labels"]["found"] == 1
    assert figures["labels"]["found_after_steps"] == [1]
    assert figures["labels"]["recall"] == 1
    assert backtest(folder / "one.csv", "--labels", folder / "labels.csv") == 0
    told = capsys.readouterr()
    assert "1 of 1 events found (recall 1)" in told.out
    assert (
        "1 series, 600 samples from 2026-01-01 00:00:00Z to 2026-01-03 01:55:00Z, in steps of 300 s"
        in told.err
    )


def test_options_of_the_pipeline(folder: Path, tmp_path: Path) -> None:
    def scored(*options: str) -> list[str]:
        assert backtest(folder / "one.csv", "--out", tmp_path / "s.csv", *options) == 0
        return [float(row[5] or 0) for row in rows_of(tmp_path / "s.csv")[1:]]

    assert np.count_nonzero(scored("--set", "score.warmup=200")) == STEPS - 200
    assert scored("--set", "score={tolerance: 5}")[SPIKE] < scored()[SPIKE] == 10
    assert len(scored("--step", "10m")) == STEPS / 2
    config = tmp_path / "c.yaml"
    config.write_text("pipelines:\n  - {name: p, step_s: 600, model: statistical}\n  - {name: q}\n")
    assert len(scored("--config", str(config), "--pipeline", "p")) == STEPS / 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a file or a folder; or a database"),
        (["{one}", "--query", "up"], "name a file or a folder; or a database"),
        (["--query", "up"], "give --start"),
        (["--query", "up", "--start", "5"], "name the database: --tsdb"),
        (["--tsdb", "http://x", "--start", "5"], "say what to ask for"),
        (["--tsdb", "ftp://x", "--query", "up", "--start", "5"], "pull.url: expected http://HOST:PORT"),
        (["--tsdb", "http://x", "--query", "up", "--start", "5", "--end", "5"], "is not behind --start"),
        (
            ["{one}", "--set", "score.tolerance=99"],
            "score.tolerance: Input should be less than or equal to 10",
        ),
        (["{one}", "--set", "colour=red"], "--set colour: a pipeline has no such option"),
        (["{one}", "--set", "model.x=1"], "model is no group of options"),
        (["{one}", "--set", "score"], "expected NAME=VALUE"),
        (["{one}", "--pipeline", "nobody"], "there is no pipeline 'nobody'"),
        (["{one}", "--out", "{missing}/x.csv"], "cannot write"),
        (["{one}", "--out", "{missing}/x.parquet"], "cannot write"),
        (["{one}", "--report", "{missing}/x.html"], "cannot write"),
    ],
)
def test_what_is_refused(
    folder: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [a.format(one=folder / "one.csv", missing=folder / "missing") for a in arguments]
    assert backtest(*given) == 2
    assert message in capsys.readouterr().err


def test_a_run_that_fails_leaves_no_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("openanomaly.core.services.backtest_summary.Summary.add", broken)
    (tmp_path / "s.csv").write_text("what was there")
    with pytest.raises(KeyboardInterrupt):
        backtest(folder / "one.csv", "--out", tmp_path / "s.csv")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("s.csv", "what was there")]


@pytest.mark.parametrize(
    ("text", "found"), [("90", 90), ("30s", 30), ("5m", 300), ("1.5h", 5400), ("1d", 86400)]
)
def test_durations(text: str, found: float) -> None:
    assert seconds(text) == found


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_a_bar_on_a_terminal() -> None:
    now, file = [0.0], _Terminal()
    progress = Progress(file, 1000, "samples", lambda: now[0])
    progress.at(0)
    now[0] = 10.0
    progress.at(250)
    shown = file.getvalue().split("\r\x1b[K")[-1]
    assert shown == f"[{'#' * 7}{'-' * 21}]  25%  250 of 1,000 samples  25/s  30 s left"
    progress.at(260)
    assert "260" not in file.getvalue(), "not more often than can be read"
    progress.close()
    assert file.getvalue().endswith("\r\x1b[K")


def test_progress_is_a_line_now_and_then_elsewhere() -> None:
    now, file = [0.0], io.StringIO()
    progress = Progress(file, 1000, "samples", lambda: now[0])
    for second in range(100):
        now[0] = second
        progress.at(10 * second)
    progress.close()
    assert file.getvalue().splitlines() == [
        "30%  300 of 1,000 samples  10/s  70 s left",
        "60%  600 of 1,000 samples  10/s  40 s left",
        "90%  900 of 1,000 samples  10/s  10 s left",
    ]
