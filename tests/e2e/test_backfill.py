"""New series begin with what a real Prometheus has stored of them."""

import time
from pathlib import Path

import pytest

from e2e.sender import push, request
from parts.part import wait_until
from parts.product import openanomaly
from parts.prometheus import prometheus
from parts.victoria import VictoriaMetrics
from recorded import CPUS, MODES, NodeCpu

STEP_S = 20
PIPELINE = {
    "name": "cpu",
    "selector": "node_cpu_seconds_total",
    "step_s": STEP_S,
    "context": 64,
    "min_context": 32,
    "score": {"warmup": 48, "block": 24},
}


@pytest.mark.timeout(240)
def test_a_new_series_has_a_score_at_its_first_step(
    tmp_path: Path, victoria_metrics: VictoriaMetrics
) -> None:
    stored = NodeCpu.around_now(before_s=2400, after_s=60)
    blocks = stored.blocks
    with prometheus(tmp_path, {}, receives=True) as store:
        stored.push(f"{store.url}/api/v1/write")
        settings = {"broker": {"partitions": 4}, "pull": {"url": store.url}, "pipelines": [PIPELINE]}
        flags = ("--broker", f"embedded://{tmp_path / 'broker'}", "--write-to", victoria_metrics.write_url)
        with openanomaly(tmp_path, *flags, config=settings) as product:
            # Two samples of one step: a counter alone has no rate.
            step_ms = STEP_S * 1000
            bucket = int(time.time() * 1000 + 10_000) // step_ms  # it stays open for a while
            first, second = bucket * step_ms, bucket * step_ms + 1000
            live = {
                stored.labels(cpu, mode): [
                    (at, stored.of(stored.block(cpu, mode))[round(at, -3)]) for at in (first, second)
                ]
                for cpu in CPUS
                for mode in MODES
            }
            push(product.write_url, request(live))
            product.wait_until(
                lambda: product.total("openanomaly_window_series_backfilled_total") == len(blocks), "the past"
            )
            push(
                product.write_url,
                request(
                    {labels: [(pairs[-1][0] + step_ms, pairs[-1][1] + 1)] for labels, pairs in live.items()}
                ),
            )
            ends_ms = (bucket + 1) * step_ms

            def scored() -> int:
                found = victoria_metrics.export("anomaly_score")
                return sum(ends_ms in samples for samples in found.values())

            wait_until(lambda: scored() == len(blocks), "scores of the first step", 60)
            learned = product.metrics()['openanomaly_backfill_series_total{result="learned"}']
            warmup = product.total("openanomaly_window_steps_in_warmup_total")
            # A forecast was asked for at once, with a full context.
            product.wait_until(
                lambda: product.total("openanomaly_inference_forecasts_total") >= len(blocks), "forecasts"
            )

    assert learned == len(blocks)
    assert warmup == 0


@pytest.mark.timeout(240)
def test_a_database_that_is_away_delays_nothing(tmp_path: Path, victoria_metrics: VictoriaMetrics) -> None:
    stored = NodeCpu.around_now(before_s=100, after_s=0)
    pipeline = {**PIPELINE, "step_s": 1, "lateness_s": 1}
    settings = {
        "broker": {"partitions": 4},
        "pull": {"url": "http://127.0.0.1:9", "retries": 0},
        "pipelines": [pipeline],
    }
    flags = ("--broker", f"embedded://{tmp_path / 'broker'}", "--write-to", victoria_metrics.write_url)
    with openanomaly(tmp_path, *flags, config=settings) as product:
        stored.push(product.write_url)
        judged = 8 * (100 - 1 - 48 - 1)  # a rate needs two samples; the last step may be open

        def written() -> float:
            return product.total("openanomaly_sink_scores_written_total")

        product.wait_until(lambda: written() >= judged, "scores")
        product.wait_until(
            lambda: "new series wait for their past" in product.process.log.read_text(), "the warning"
        )
