"""A trial says what a backtest says."""

from pathlib import Path

import numpy as np
import pytest

from openanomaly.adapters.statistical import StatisticalAdapter
from openanomaly.cli import main
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.playground import recorded, trial
from openanomaly.playground.trial import Trial, TrialError
from openanomaly.settings import PlaygroundSettings

START_S, STEPS, SPIKE = 1_767_225_600, 500, 400
PIPELINE = Pipeline.model_validate(
    {"name": "tried", "step_s": 60, "model": "statistical", "score": {"tolerance": 0.3}}
)
ENGINES = {"statistical": StatisticalAdapter()}


def csv() -> str:
    rng = np.random.default_rng(3)
    load = 5 + np.sin(np.arange(STEPS) / 9) + 0.1 * rng.standard_normal(STEPS)
    load[SPIKE] += 20
    other = rng.uniform(1, 2, STEPS)
    rows = [f"{START_S + 60 * i},{load[i]!r},{other[i]!r}" for i in range(STEPS)]
    return "\n".join(["time,load,other", *(row.replace("np.float64(", "").replace(")", "") for row in rows)])


@pytest.fixture(scope="module")
def found() -> Trial:
    known = f"start,end,series\n{START_S + 60 * SPIKE},{START_S + 60 * SPIKE},load\n".encode()
    found = recorded.of_file("fleet.csv", csv().encode(), known, PlaygroundSettings())
    return trial.run(found, PIPELINE, ENGINES, 60, lambda done, of: None)


def test_its_scores_are_those_of_a_backtest(found: Trial, tmp_path: Path) -> None:
    file, out = tmp_path / "fleet.csv", tmp_path / "scores.csv"
    file.write_text(csv())
    options = ["--step", "60s", "--model", "statistical", "--set", "score.tolerance=0.3"]
    assert main(["backtest", str(file), *options, "--out", str(out)]) == 0
    assert found.csv().decode() == out.read_text()


def test_a_counter_in_a_file_of_its_own_is_one(tmp_path: Path) -> None:
    """The name of the file is that of its series, and so says what it is."""
    file, out = tmp_path / "errors_total.csv", tmp_path / "scores.csv"
    file.write_text("\n".join(["time,value", *(f"{START_S + 60 * i},{i * 6}" for i in range(300))]))
    assert main(["backtest", str(file), "--step", "60s", "--model", "statistical", "--out", str(out)]) == 0
    pipeline = Pipeline(name="x", step_s=60, model="statistical")
    read = recorded.of_file(file.name, file.read_bytes(), None, PlaygroundSettings())
    tried = trial.run(read, pipeline, ENGINES, 60, lambda done, of: None)
    assert tried.csv().decode() == out.read_text()
    assert tried.steps[0].value[10] == pytest.approx(0.1)


def test_scores_are_written_in_chunks_as_at_once(found: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = found.csv()
    monkeypatch.setattr(trial, "_CSV_STEPS", 7)
    assert found.csv() == whole


def test_its_figures_are_those_of_its_steps(found: Trial) -> None:
    figures = found.figures()
    score = np.concatenate([s.score for s in found.steps])
    assert figures["anomalous steps"] == (score > 1).sum() >= 1
    assert figures["events found"] == "1 of 1"
    assert figures["series with episodes"] == sum(bool((s.score > 1).any()) for s in found.steps)
    assert found.days == pytest.approx((STEPS - 144) * 60 / 86400)


def test_days_are_those_of_the_clock_where_series_come_and_go() -> None:
    rows = ["time,series,value"]
    for k in range(4):
        rows += [f"{START_S + 60 * (i + 300 * k)},pod_{k},{i % 7}" for i in range(300)]
    read = recorded.of_file("pods.csv", "\n".join(rows).encode(), None, PlaygroundSettings())
    tried = trial.run(read, PIPELINE, ENGINES, 60, lambda done, of: None)
    assert tried.days == pytest.approx((4 * 300 - 144) * 60 / 86400)


def test_a_spike_of_a_step_is_an_alert_only_of_a_rule_that_does_not_wait(found: Trial) -> None:
    at_once = found.alerts(3.0, 0)[0]
    assert at_once.from_ms.tolist() == [(START_S + 60 * (SPIKE + 1)) * 1000]
    assert len(found.alerts(3.0, 300)[0]) == 0


def test_its_report_is_a_page(found: Trial) -> None:
    page = found.report()
    assert page.startswith("<!doctype html>")
    assert "1 of 1" in page


def test_it_tells_how_far_it_is() -> None:
    told: list[tuple[int, int]] = []
    found = recorded.of_file("fleet.csv", csv().encode(), None, PlaygroundSettings())
    trial.run(found, PIPELINE, ENGINES, 60, lambda done, of: told.append((done, of)))
    assert told[0] == (0, 2 * STEPS)
    assert told[-1] == (2 * STEPS, 2 * STEPS)


def test_it_ends_when_its_time_is_up() -> None:
    long = "\n".join(["time,load", *(f"{START_S + 60 * i},{i % 9}" for i in range(300_000))])
    found = recorded.of_file("long.csv", long.encode(), None, PlaygroundSettings())
    with pytest.raises(TrialError, match=r"of 300,000 samples.*playground\.timeout_s=1e-06"):
        trial.run(found, PIPELINE, ENGINES, 1e-6, lambda done, of: None)
