"""Pull mode between a real Prometheus, with recorded samples, and a real VictoriaMetrics."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from answering import Answer, Server
from e2e.test_target import readiness
from openanomaly.adapters.engines import make_engines
from openanomaly.adapters.prometheus import PrometheusAdapter
from openanomaly.adapters.remote_write.client import Target
from openanomaly.core.frames import SampleFrame, ScoreFrame
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.series import decode_labels
from openanomaly.core.series_column import SeriesColumn
from openanomaly.core.services.local import LocalScoring
from parts.part import wait_until
from parts.product import Product, openanomaly
from parts.prometheus import Prometheus, prometheus
from parts.victoria import VictoriaMetrics
from recorded import MODES, NodeCpu

STEP_MS = 1000
QUERY = "sum by (mode) (rate(node_cpu_seconds_total[1m]))"
SCORING = {
    "step_s": 1,
    "lateness_s": 1,
    "context": 64,
    "min_context": 32,
    "forecast_every": 8,
    "score": {"warmup": 48, "block": 24},
}
HISTORY = 64 + 48
OUTPUTS = ("anomaly_score", "yhat", "yhat_lower", "yhat_upper", "y")
Written = dict[str, dict[str, dict[int, float]]]
"""By output and mode: timestamp_ms -> value."""


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Prometheus]:
    """Holds samples until ten minutes from now: it shows them as the clock reaches them."""
    with prometheus(tmp_path, {}, receives=True) as store:
        NodeCpu.around_now(before_s=300, after_s=600).push(f"{store.url}/api/v1/write")
        yield store


def config(source: Prometheus, target: VictoriaMetrics, root: Path, **pull: Any) -> Mapping[str, Any]:
    return {
        "pull": {"url": source.url, "state_dir": str(root / "state"), "backoff_max_s": 0.2, **pull},
        "sink": {"url": target.write_url, "series": OUTPUTS, "external_labels": {"site": "lab"}},
        "inference": {"threads": 1},
        "pipelines": [
            {"name": "broken", "query": "sum by (mode)", "step_s": 1, "lateness_s": 0},
            {"name": "cpu", "query": QUERY, **SCORING, "labels": {"team": "infra"}},
            {"name": "all", "query": "sum(node_cpu_seconds_total)", **SCORING},
            {"name": "of-the-stream", "selector": "node_cpu_seconds_total"},
        ],
    }


def written(target: VictoriaMetrics, pipeline: str = "cpu") -> Written:
    out: Written = {}
    for labels, samples in target.export(f'{{pipeline="{pipeline}"}}').items():
        named = dict(labels)
        out.setdefault(named.pop("__name__"), {})[named.pop("mode", "")] = samples
        team = {"team": "infra"} if pipeline == "cpu" else {}
        assert named == {"pipeline": pipeline, "site": "lab", **team}
    return out


def steps(target: VictoriaMetrics, pipeline: str = "cpu") -> list[int]:
    """Times of the scores of one series, ascending."""
    return sorted(next(iter(written(target, pipeline).get("anomaly_score", {"": {}}).values())))


def stream_of(source: Prometheus, first_ms: int, last_ms: int) -> list[ScoreFrame]:
    """What the stream would say of samples that come at the end of each step."""
    found = PrometheusAdapter(Target(source.url)).range_query(QUERY, first_ms, last_ms + STEP_MS, STEP_MS)
    pipeline = Pipeline.model_validate(
        {"name": "cpu", "selector": '{mode!=""}', "transform": "none", "aggregate": "last", **SCORING}
    )
    scoring = LocalScoring([pipeline], make_engines(["auto"], threads=1), max_series=10)
    samples = SampleFrame(
        SeriesColumn.of(found.blocks), found.row, found.timestamp_ms - 1, found.value, received_ms=0
    )
    return scoring.put(samples, now_ms=0)


def expected(frames: list[ScoreFrame]) -> Written:
    out: Written = {}
    for f in frames:
        columns = dict(zip(OUTPUTS, (f.score.round(6), *f.expected.T, f.value), strict=True))
        for i, row in enumerate(f.row.tolist()):
            mode = dict(decode_labels(f.series.block(row)))["mode"]
            for output, column in columns.items():
                if not np.isnan(column[i]):
                    out.setdefault(output, {}).setdefault(mode, {})[int(f.timestamp_ms[i])] = float(column[i])
    return out


def balance(product: Product) -> float:
    """Scores that were made, less those that are somewhere."""
    there = ("written_total", "dropped_total", "pending")
    total = {name: product.total(f"openanomaly_pull_scores_{name}") for name in there}
    return product.total("openanomaly_pull_scores_total") - sum(total.values())


def assert_complete(source: Prometheus, target: VictoriaMetrics) -> None:
    """Every step of every mode, from the first score on, is there once, with the values of the core."""
    found = written(target)
    assert sorted(found["anomaly_score"]) == sorted(MODES)
    first_ms, last_ms = min(steps(target)), max(steps(target))
    should = expected(stream_of(source, first_ms - HISTORY * STEP_MS, last_ms))
    assert sorted(found) == sorted(OUTPUTS)
    for output in OUTPUTS:
        for mode in MODES:
            wanted = {t: v for t, v in should[output][mode].items() if first_ms <= t <= last_ms}
            assert list(wanted) == list(range(first_ms, last_ms + 1, STEP_MS))
            assert sorted(found[output][mode]) == list(wanted), (output, mode)
            assert found[output][mode] == pytest.approx(wanted, rel=1e-5, abs=1e-9), (output, mode)


@pytest.mark.timeout(180)
def test_every_step_is_scored_once_also_over_a_crash_and_beside_a_query_that_fails(
    tmp_path: Path, source: Prometheus, victoria_metrics: VictoriaMetrics
) -> None:
    product = Product(tmp_path, command="pull", config=config(source, victoria_metrics, tmp_path))
    try:
        product.start()
        product.wait_until(lambda: len(steps(victoria_metrics)) >= 8, "scores")
        product.kill()
        before = steps(victoria_metrics)
        missed_ms = max(before) + 5 * STEP_MS
        wait_until(lambda: time.time() * 1000 > missed_ms, "steps that are missed")
        product.start()
        product.wait_until(
            lambda: max(steps(victoria_metrics), default=0) > missed_ms + 5 * STEP_MS, "scores again"
        )
        product.wait_until(lambda: len(steps(victoria_metrics, "all")) > 12, "a sum without labels")
        metrics = product.metrics()
        assert metrics['openanomaly_pull_runs_total{outcome="refused",pipeline="broken"}'] >= 1
        assert 'openanomaly_pull_runs_total{outcome="crashed",pipeline="cpu"}' not in metrics
        assert product.total("openanomaly_pull_steps_skipped_total") == 0
        assert product.total("openanomaly_pull_scores_dropped_total") == 0
        assert any(name.startswith("openanomaly_inference_engine_info{") for name in metrics)
        made = metrics["openanomaly_inference_forecasts_total"]
        assert 0 < made <= metrics["openanomaly_inference_contexts_total"]
        assert product.stop() == 0
        assert "refuses the query 'sum by (mode)'" in product.process.log.read_text()
    finally:
        product.stop()
    assert_complete(source, victoria_metrics)
    assert set(before) < set(steps(victoria_metrics))
    whole = steps(victoria_metrics, "all")
    assert whole == list(range(whole[0], whole[-1] + 1, STEP_MS))


@pytest.mark.timeout(180)
def test_scores_wait_for_a_target_that_is_away(
    tmp_path: Path, source: Prometheus, victoria_metrics: VictoriaMetrics
) -> None:
    settings = config(source, victoria_metrics, tmp_path, retries=0)
    with openanomaly(tmp_path, command="pull", config=settings) as product:
        product.wait_until(lambda: len(steps(victoria_metrics)) >= 3, "scores")
        victoria_metrics.process.stop()
        product.wait_until(
            lambda: product.total("openanomaly_pull_scores_pending") >= 5 * len(MODES), "waiting"
        )
        victoria_metrics.process.start()
        product.wait_until(lambda: product.total("openanomaly_pull_scores_pending") == 0, "written")
        product.wait_until(lambda: balance(product) == 0, "the counts of scores to add up")
        came_back_ms = int(time.time() * 1000)
        product.wait_until(lambda: max(steps(victoria_metrics), default=0) > came_back_ms, "scores again")
    assert_complete(source, victoria_metrics)


def test_it_ends_when_told_to_also_while_nobody_answers(tmp_path: Path) -> None:
    with Server(rule=lambda asked: Answer(how="hang")).running() as server:
        settings = {
            "pull": {"url": server.url, "timeout_s": 600, "state_dir": str(tmp_path / "state")},
            "pipelines": [{"name": "cpu", "query": "x", "step_s": 1}],
        }
        product = Product(tmp_path, command="pull", config=settings)
        product.process.start()
        try:
            product.wait_until(lambda: server.asked, "a query")
            product.wait_until(lambda: readiness(product.url)[0] == 503, "not ready")
            assert product.process.stop(timeout_s=30) == 0
        finally:
            product.process.stop()
        assert "not stopped within" in product.process.log.read_text()
