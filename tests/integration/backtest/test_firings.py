"""Alerts that we say a rule would have fired are those that Prometheus fires."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml

from openanomaly.core.scoring.firing import firings
from parts.debian import program

MINUTE_MS = 60_000
STEPS = 90
RULE = {"alert": "High", "expr": "anomaly_score > 1"}


def cases() -> list[list[float]]:
    rng = np.random.default_rng(4)
    out = []
    for share in (0.3, 0.6, 0.85):
        score = np.where(rng.random(STEPS) < share, 2.0, 0.5)
        score[rng.random(STEPS) < 0.2] = np.nan
        score[40:48] = np.nan  # longer than a sample is shown
        out.append(score.tolist())
    return out


@pytest.mark.parametrize("wait", [0, 2, 5])
def test_promtool_sees_the_same_alerts(wait: int, tmp_path: Path) -> None:
    scores = cases()
    rule = RULE | ({"for": f"{wait}m"} if wait else {})
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "x", "rules": [rule]}]}))
    series, alerts = [], []
    for case, score in enumerate(scores):
        values = " ".join("_" if np.isnan(s) else f"{s:g}" for s in score)
        series.append({"series": f'anomaly_score{{case="{case}"}}', "values": values})
        found = firings(np.arange(STEPS) * MINUTE_MS, np.array(score), 1.0, wait * MINUTE_MS)
        assert len(found) >= (1 if wait < 5 else 0)
        for minute in range(STEPS):
            # Not at a step: whether a sample that is exactly five minutes old is shown hangs on the version.
            at_ms = minute * MINUTE_MS + 20_000
            is_fired = bool(((found.fired_ms <= at_ms) & (at_ms < found.until_ms)).any())
            alerts.append((minute, case, is_fired))
    tests = []
    for minute in range(STEPS):
        expected = [
            {"labels": f'ALERTS{{alertname="High",alertstate="firing",case="{case}"}}', "value": 1}
            for at, case, is_fired in alerts
            if at == minute and is_fired
        ]
        tests.append(
            {"expr": 'ALERTS{alertstate="firing"}', "eval_time": f"{minute}m20s", "exp_samples": expected}
        )
    test = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "20s",
        "tests": [{"interval": "1m", "input_series": series, "promql_expr_test": tests}],
    }
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump(test))
    done = subprocess.run(
        [program("promtool"), "test", "rules", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
