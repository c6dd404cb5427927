"""Requests captured from real senders, pushed again: all are taken, counted and scored."""

import json
from pathlib import Path
from typing import Any

import cramjam
import pytest

from e2e.sender import push
from openanomaly.pb.prometheus import remote_write_2_pb2 as pb
from parts.product import openanomaly
from parts.victoria import VictoriaMetrics

GOLDEN = Path(__file__).parents[1] / "golden"
WRITTEN = "X-Prometheus-Remote-Write-{}-Written"
CONFIG = {
    "broker": {"partitions": 2},
    "sink": {"emit": "all"},
    "pipelines": [
        {
            "name": "replayed",
            "selector": '{job="page", __name__!~".+_(bucket|sum|count|total)"}',
            "step_s": 1,
            "score": {"warmup": 1, "block": 12},
        }
    ],
}


@pytest.mark.parametrize("sender", ["prometheus-2", "prometheus-3-v2", "vmagent"])
def test_captured_requests_are_taken_counted_and_scored(
    tmp_path: Path, victoria_metrics: VictoriaMetrics, sender: str
) -> None:
    capture = json.loads((GOLDEN / sender / "capture.json").read_text())
    flags = ("--broker", f"embedded://{tmp_path / 'broker'}", "--write-to", victoria_metrics.write_url)
    with openanomaly(tmp_path, *flags, config=CONFIG) as product:
        for each in capture["requests"]:
            body = (GOLDEN / sender / each["file"]).read_bytes()
            answer = push(product.write_url, body, headers=each["headers"])
            if sender == "prometheus-3-v2":
                assert [int(answer[WRITTEN.format(name)]) for name in counts(body)] == list(
                    counts(body).values()
                )

        expected = {tuple(sorted(each.items())) for each in scored_labels(capture)}

        def scored() -> set[tuple[tuple[str, str], ...]]:
            return set(victoria_metrics.export("anomaly_score"))

        product.wait_until(lambda: scored() >= expected, "scores")
        assert len(expected) > 10


def counts(body: bytes) -> dict[str, int]:
    """What a request of 2.0 carries, by the full schema."""
    message = pb.Request.FromString(bytes(cramjam.snappy.decompress_raw(body)))
    return {
        "Samples": sum(len(series.samples) for series in message.timeseries),
        "Histograms": sum(len(series.histograms) for series in message.timeseries),
        "Exemplars": sum(len(series.exemplars) for series in message.timeseries),
    }


def scored_labels(capture: dict[str, Any]) -> list[dict[str, str]]:
    """Labels of the scores of every selected series that has finite values until the end."""
    odd = ("with_timestamp", "going_away", "scrape_")
    found = []
    for series in capture["series"]:
        labels, values = series["labels"], {float(value) for _, value in series["samples"]}
        name = labels["__name__"]
        is_counter = name.endswith(("_bucket", "_sum", "_count", "_total"))
        is_finite = all(abs(value) < 1e30 for value in values)
        if labels["job"] == "page" and is_finite and not is_counter and not name.startswith(odd):
            found.append({**labels, "__name__": "anomaly_score", "for": name, "pipeline": "replayed"})
    return found
