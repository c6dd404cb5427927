"""node_exporter -> Prometheus -> openanomaly run -> VictoriaMetrics, all real."""

from pathlib import Path

import pytest

from e2e.scraped import Seen, watch
from parts.kafka import Cluster


def check(seen: Seen) -> None:
    assert len(seen.expected) > 100
    assert seen.expected <= seen.scored
    assert seen.scored <= seen.allowed
    assert seen.failed_samples == 0


@pytest.mark.timeout(300)
def test_every_scraped_series_has_a_score_with_all_its_labels_on_the_embedded_broker(tmp_path: Path) -> None:
    check(watch(tmp_path, f"embedded://{tmp_path / 'broker'}", {"partitions": 4}))


@pytest.mark.timeout(300)
def test_every_scraped_series_has_a_score_with_all_its_labels_on_kafka(
    tmp_path: Path, kafka: Cluster, topic_prefix: str
) -> None:
    check(watch(tmp_path, kafka.url, {"partitions": 4, "topic_prefix": topic_prefix}))
