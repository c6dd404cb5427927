"""A real machine, scraped by a real Prometheus that pushes into a running `openanomaly`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from parts import exporters, prometheus, victoria
from parts.product import openanomaly

Labels = tuple[tuple[str, str], ...]

PIPELINE = {
    "name": "live",
    "selector": '{job="node"}',
    "step_s": 1,
    "lateness_s": 1,
    "min_context": 8,
    "score": {"warmup": 6, "block": 12},
}
EXTERNAL = {"cluster": "test"}


@dataclass(frozen=True)
class Seen:
    """What the store and the sender held at the end.

    Attributes:
        scored: labels of every series with a score, as stored.
        expected: labels that a score must have, for every series that was scraped often enough.
        allowed: the same for every series that was scraped at all.
        failed_samples: remote-write failures by Prometheus's own count.
    """

    scored: set[Labels]
    expected: set[Labels]
    allowed: set[Labels]
    failed_samples: float


def config(broker: Mapping[str, Any]) -> dict[str, Any]:
    return {"broker": dict(broker), "sink": {"emit": "all"}, "pipelines": [PIPELINE]}


def scored_labels(scraped: Mapping[str, str]) -> Labels:
    """The labels that the score of a scraped series has."""
    labels = {
        **scraped,
        "__name__": "anomaly_score",
        "for": scraped["__name__"],
        "pipeline": "live",
        **EXTERNAL,
    }
    return tuple(sorted(labels.items()))


def watch(
    root: Path,
    broker_url: str,
    broker: Mapping[str, Any],
    *,
    version: Literal[2, 3] = 2,
    message: Literal[1, 2] = 1,
    scrapes: int = 20,
) -> Seen:
    """Runs the whole path until every series has been scored for a while."""
    with (
        victoria.victoria_metrics(root) as store,
        exporters.node_exporter(root) as node,
        openanomaly(
            root, "--broker", broker_url, "--write-to", store.write_url, config=config(broker)
        ) as product,
        prometheus.prometheus(
            root,
            {"node": node},
            product.write_url,
            version=version,
            message=message,
            external_labels=EXTERNAL,
        ) as sender,
    ):

        def series(at_least: int) -> set[Labels]:
            rows = sender.query_range_vector('{job="node"}')
            return {scored_labels(row["metric"]) for row in rows if len(row.get("values", ())) >= at_least}

        def scored() -> set[Labels]:
            return set(store.export('anomaly_score{for!="anomaly_rate"}'))

        product.wait_until(lambda: len(series(scrapes)) > 100, f"{scrapes} scrapes", 120)
        expected = series(scrapes)
        try:
            product.wait_until(lambda: scored() >= expected, "a score of every series", 60)
        except Exception as exc:
            missing = sorted(expected - scored())
            raise AssertionError(
                f"{len(missing)} of {len(expected)} without a score, as {missing[:3]}"
            ) from exc
        return Seen(scored(), expected, series(1), sender.samples_failed())
