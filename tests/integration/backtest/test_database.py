"""Backtests over a real VictoriaMetrics: queries as in pull mode, stored samples as in the stream."""

import json
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openanomaly import cli
from openanomaly.adapters.prometheus import PrometheusAdapter
from openanomaly.adapters.remote_write.client import Target
from openanomaly.adapters.statistical import StatisticalAdapter
from openanomaly.core.frames import ScoreFrame
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.services.local import LocalScoring
from openanomaly.core.services.pulled import PulledPipeline, PullOptions
from parts.part import get
from parts.product import Product, openanomaly
from parts.victoria import VictoriaMetrics, victoria_metrics

STEP_MS, STEPS = 60_000, 400
START_MS = 1_767_225_600_000
END_MS = START_MS + STEPS * STEP_MS


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VictoriaMetrics]:
    rng = np.random.default_rng(2)
    with victoria_metrics(tmp_path_factory.mktemp("database")) as found:
        counted, lines = 0.0, []
        for i in range(STEPS):
            counted += 600 + 6 * rng.standard_normal()
            at = START_MS + i * STEP_MS
            value = 5 + np.sin(i / 9) + 0.1 * rng.standard_normal() + (20 if i == 350 else 0)
            lines.append(f'load{{host="a"}} {float(value)!r} {at}')
            lines.append(f"requests_total {counted!r} {at + 7_000}")
        body = "\n".join(lines).encode()
        request = urllib.request.Request(f"{found.url}/api/v1/import/prometheus", body)
        urllib.request.urlopen(request, timeout=30).close()
        get(f"{found.url}/internal/force_flush")
        yield found


def backtest(*arguments: object) -> list[list[str]]:
    """Rows of the scores, without the header."""
    *given, out = arguments
    assert cli.main(["backtest", *map(str, given), "--out", str(out)]) == 0
    return [line.rsplit(",", 6) for line in Path(str(out)).read_text().splitlines()[1:]]


def test_a_query_is_scored_as_pull_mode_does(database: VictoriaMetrics, tmp_path: Path) -> None:
    span = "--start", START_MS, "--end", END_MS
    rows = backtest(
        "--tsdb",
        database.url,
        "--query",
        "load",
        "--step",
        "60",
        "--model",
        "statistical",
        *span,
        tmp_path / "q.csv",
    )
    times = np.array([np.datetime64(row[0].rstrip("Z"), "ms").astype(np.int64) for row in rows])
    assert (times % STEP_MS == 0).all()
    assert (times[0], times[-1]) == (START_MS + STEP_MS, END_MS)
    found = {int(t): np.float32(row[5]) for t, row in zip(times, rows, strict=True) if row[5]}

    written: list[ScoreFrame] = []

    class Client(PrometheusAdapter):
        def write(self, frames):  # type: ignore[no-untyped-def, override]
            written.extend(frames)
            return super().write(frames)

    class Nothing:
        def load(self, name: str) -> None: ...

        def save(self, name: str, state: bytes) -> None: ...

    pipeline = Pipeline(name="p", query="load", step_s=60, model="statistical")
    pulled = PulledPipeline(
        pipeline,
        Client(Target(database.url)),
        Nothing(),  # type: ignore[arg-type]
        lambda of: LocalScoring([of], {"statistical": StatisticalAdapter(1)}, 10),
        threading.Lock(),
        PullOptions(history_s=STEPS * 60 * 2, catch_up_s=STEPS * 60 * 2),
    )
    pulled.done_ms, pulled._floor_ms = START_MS, START_MS  # as if it had been there from the start
    report = pulled.run(END_MS + 10_000)
    assert report.outcome == "ok"
    pull = {int(t): s for f in written for t, s in zip(f.timestamp_ms, f.score, strict=True)}
    assert len(pull) == STEPS - 144
    assert found == pull


def test_stored_samples_are_scored_as_a_file_of_them(database: VictoriaMetrics, tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    pipelines = [
        {
            "name": "p",
            "selector": '{__name__=~"load|requests_total"}',
            "model": "statistical",
            "aggregate": "last",
        }
    ]
    config.write_text(json.dumps({"pull": {"url": database.url}, "pipelines": pipelines}))
    of = "--config", config, "--pipeline", "p"
    stored = backtest(*of, "--start", START_MS, "--end", END_MS, tmp_path / "s.csv")

    samples = database.export('{__name__=~"load|requests_total"}')
    (tmp_path / "in").mkdir()
    for labels, values in samples.items():
        name = dict(labels)["__name__"]
        lines = [f"timestamp,host,value,{'series'}"]
        lines += [
            f'{t},,{v!r},"{name}{{host=""a""}}"' if name == "load" else f"{t},,{v!r},{name}"
            for t, v in values.items()
        ]
        (tmp_path / "in" / f"{name}.csv").write_text("\n".join(lines))
    filed = backtest(*of, tmp_path / "in", tmp_path / "f.csv")
    assert len(stored) == len(filed) == 2 * STEPS - 1
    assert [row[1:] for row in stored] == [row[1:] for row in filed]
    assert {row[0].split(",", 1)[1] for row in stored} == {'"load{host=""a""}"', "requests_total"}
    rates = [float(row[1]) for row in stored if "requests_total" in row[0]]
    assert np.median(rates) == pytest.approx(10, rel=0.01), "counters are rates"
    assert max(float(row[5] or 0) for row in stored if "load" in row[0]) > 1


def test_what_goes_wrong_is_said(
    database: VictoriaMetrics, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(url: str, query: str) -> tuple[int, str]:
        asked = [
            "--tsdb",
            url,
            "--query",
            query,
            "--step",
            "60",
            "--start",
            str(START_MS),
            "--end",
            str(END_MS),
        ]
        return cli.main(["backtest", *asked]), capsys.readouterr().err

    assert run(database.url, "nothing") == (
        2,
        f"openanomaly: {database.url} has no samples of that time\n",
    )
    status, words = run(database.url, "rate()")
    assert status == 2
    assert "refuses the query 'rate()'" in words
    status, words = run("http://127.0.0.1:1", "up")
    assert status == 1
    assert "127.0.0.1:1" in words


def previewed(api: Product, pipeline: dict[str, object]) -> dict[tuple[str, int], float]:
    """Scores of a preview over the range of the database, by name and end of the step; NaN in warm-up."""
    asked = {"pipeline": pipeline, "range": {"start_ms": START_MS, "end_ms": END_MS}}
    request = urllib.request.Request(
        f"{api.url}/api/v1/preview", json.dumps(asked).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        lines = [json.loads(line) for line in answer]
    assert [line["kind"] for line in lines][-1] == "summary"
    return {
        (line["labels"]["__name__"], end_ms): np.nan if score is None else score
        for line in lines
        if line["kind"] == "scores"
        for end_ms, score in zip(line["end_ms"], line["score"], strict=True)
    }


def test_previews_and_dry_runs_of_the_api_are_of_the_database(
    database: VictoriaMetrics, tmp_path: Path
) -> None:
    (tmp_path / "pipelines").mkdir()
    config = {"pull": {"url": database.url}, "store": {"url": str(tmp_path / "pipelines")}}
    span = "--start", START_MS, "--end", END_MS
    query = "--tsdb", database.url, "--query", "load", "--step", "60", "--model", "statistical"
    selector = '{__name__=~"load|requests_total"}'
    stored = {"name": "p", "selector": selector, "model": "statistical", "aggregate": "last"}
    (tmp_path / "c.yaml").write_text(json.dumps({"pull": config["pull"], "pipelines": [stored]}))
    with openanomaly(tmp_path, command="api", config=config) as api:
        of_query = previewed(api, {"name": "q", "query": "load", "step_s": 60, "model": "statistical"})
        of_selector = previewed(api, stored)
        asked = json.dumps({"pipeline": stored}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{api.url}/api/v1/dry-run", asked, headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            counted = json.loads(answer.read())["series"]

    def scores(rows: list[list[str]]) -> Any:
        return pytest.approx([float(row[5] or "nan") for row in rows], rel=1e-6, nan_ok=True)

    rows = backtest(*query, *span, tmp_path / "q.csv")
    times = [int(np.datetime64(row[0].rstrip("Z"), "ms").astype(np.int64)) for row in rows]
    assert list(of_query) == [("load", t) for t in times]
    assert list(of_query.values()) == scores(rows)
    rows = backtest("--config", tmp_path / "c.yaml", "--pipeline", "p", *span, tmp_path / "s.csv")
    for name in ("load", "requests_total"):
        mine = [score for (n, _), score in of_selector.items() if n == name]
        assert mine == scores([row for row in rows if name in row[0]])
        assert np.isfinite(mine).sum() > 200
    assert counted["count"] == 0, "none of them has had a sample lately"
    assert database.url.split("//")[1] in counted["of"]
