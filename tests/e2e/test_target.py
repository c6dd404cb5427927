"""The target of scores goes away while samples flow: nothing is lost, and everybody is told."""

import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from e2e.pushed import Fleet, scores
from e2e.sender import push, request
from parts.part import wait_until
from parts.product import openanomaly
from parts.victoria import VictoriaMetrics

WARMUP = 48
CONFIG = {
    "broker": {"partitions": 4},
    "sink": {"emit": "all", "backoff_max_s": 0.5},
    "pipelines": [
        {
            "name": "pushed",
            "selector": "test_load",
            "step_s": 1,
            "lateness_s": 1,
            "min_context": 32,
            "score": {"warmup": WARMUP, "block": 48},
        }
    ],
}


def readiness(url: str) -> tuple[int, dict[str, str]]:
    """Status and reasons of the readiness probe."""
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=5) as answer:
            return answer.status, json.load(answer)["reasons"]
    except urllib.error.HTTPError as exc:
        return exc.code, json.load(exc)["reasons"]


@pytest.mark.timeout(180)
def test_scores_wait_for_a_target_that_is_away(tmp_path: Path, victoria_metrics: VictoriaMetrics) -> None:
    fleet = Fleet(hosts=10, steps=240)
    flags = ("--broker", f"embedded://{tmp_path / 'broker'}", "--write-to", victoria_metrics.write_url)
    with openanomaly(tmp_path, *flags, config=CONFIG) as product:
        push(product.write_url, request(fleet.samples(0, 120)))
        product.wait_until(lambda: product.total("openanomaly_sink_scores_written_total") > 0, "scores")
        victoria_metrics.process.stop()
        push(product.write_url, request(fleet.samples(120, 240)))
        product.wait_until(lambda: readiness(product.url)[0] == 503, "not ready")
        assert list(readiness(product.url)[1]) == ["sink"]
        # Scoring goes on meanwhile: every step but the open one has been judged.
        judged = 10 * (240 - WARMUP - 1)
        product.wait_until(
            lambda: product.total("openanomaly_window_scores_emitted_total") >= judged, "steps judged"
        )
        victoria_metrics.process.start()
        product.wait_until(lambda: readiness(product.url)[0] == 200, "ready again")
        last_ms = fleet.scored_ms(238)
        wait_until(
            lambda: all(last_ms in samples for samples in scores(victoria_metrics).values()), "the scores"
        )
        found = scores(victoria_metrics)
        assert product.total("openanomaly_sink_target_up") == 1
    assert len(found) == 10
    for name, samples in found.items():
        first = (min(samples) - fleet.start_ms) // 1000 - 1
        assert first <= WARMUP + 1, name
        held = [step for step in range(first, 239) if fleet.scored_ms(step) in samples]
        assert held == list(range(first, 239)), name
