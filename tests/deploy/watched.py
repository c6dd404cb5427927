"""OpenAnomaly with both presets over a day of a host and a cluster, and everything that it says.

The series are those of a running node_exporter and the well-known ones of Kubernetes, with values made here:
waves, and at the end all of them somewhere else. They are pushed into a running product and into the
VictoriaMetrics that its scores go to, which gets the product's own metrics too. So all that a dashboard or a
rule asks for is in one place, at one time.
"""

import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from e2e.sender import push, request
from openanomaly.core.series import Labels
from parts import exporters
from parts.part import get
from parts.product import Product, openanomaly
from parts.victoria import VictoriaMetrics, victoria_metrics

KUBERNETES = Path(__file__).parent / "kubernetes.txt"
MINUTE_MS = 60_000
STEPS, ODD = 310, 3
SCRAPED = 248
"""Step after which the product is scraped the first time: some scores are there, behind the warm-up."""
WRITTEN = "openanomaly_sink_scores_written_total"
PER_REQUEST = 31
OWN_MS = 30_000
"""Between two scrapes of the product, in the time of the series."""
OWN = {"job": "openanomaly", "namespace": "default", "instance": "oa:9201"}
ALONE = {"job": "alone", "instance": "oa:9201"}
"""Of the same product a second time, as it is scraped outside Kubernetes: nothing has a namespace."""
CONFIG = {
    "presets": ["node-exporter", "kubernetes"],
    "broker": {"partitions": 1},
    "window": {"checkpoint_s": 1},  # groups are told of what is confirmed
    "sink": {"emit": "all", "series": ["anomaly_score", "yhat", "yhat_lower", "yhat_upper", "y"]},
}
Exported = dict[Labels, str]
"""Labels of each series -> type of its metric."""


@dataclass(frozen=True)
class Watched:
    """What there is to ask, and when.

    Attributes:
        exported: metric -> labels that any of its series has, as stored.
        at_s: time of the last samples.
    """

    store: VictoriaMetrics
    exported: dict[str, frozenset[str]]
    at_s: float


def series(text: str) -> Exported:
    """The series of a page of metrics."""
    return {
        tuple(sorted({"__name__": sample.name, **sample.labels}.items())): metric.type
        for metric in text_string_to_metric_families(text)
        for sample in metric.samples
    }


def host(root: Path) -> Exported:
    """The series of a running node_exporter."""
    with exporters.node_exporter(root) as address:
        return series(get(f"http://{address}/metrics").decode())


def watch(root: Path) -> Iterator[Watched]:
    """A product that has scored all of it, and has been scraped twice meanwhile."""
    found = scraped(host(root), "node", "host:9100")
    found |= scraped(replicas(series(KUBERNETES.read_text())), "kubernetes", "node-1")
    last_ms = int(time.time()) // 300 * 300_000
    values = made(found)
    with victoria_metrics(root) as store:
        flags = ("--broker", f"embedded://{root / 'broker'}", "--write-to", store.write_url)
        with openanomaly(root, *flags, config=CONFIG) as product:
            for first in range(0, STEPS, PER_REQUEST):
                steps = range(first, first + PER_REQUEST)
                samples = {
                    labels: [
                        (last_ms + (step + 1 - STEPS) * step_ms(labels), float(values[labels][step]))
                        for step in steps
                    ]
                    for labels in found
                }
                push(product.write_url, request(samples))
                push(store.write_url, request(samples))
                if first == SCRAPED:
                    product.wait_until(lambda: is_forecast(product), "forecasts, and scores at the target")
                    scrape(product, store, last_ms - OWN_MS)
            product.wait_until(lambda: is_told(store, last_ms), "scores, of groups too", 120)
            scrape(product, store, last_ms)
            yield Watched(store, stored(store), last_ms / 1000 + 1)


def replicas(found: Exported) -> Exported:
    """The series, and those of a pod once for each of five: groups of fewer series have no share."""
    return {
        tuple((name, f"app-{i}" if name == "pod" else value) for name, value in labels): kind
        for labels, kind in found.items()
        for i in range(1, 6)
    }


def step_ms(labels: Labels) -> int:
    """From one sample of a series to the next: the step of its pipeline."""
    slow = ("node_filesystem_", "kubelet_volume_")
    return 300_000 if dict(labels)["__name__"].startswith(slow) else MINUTE_MS


def scraped(found: Exported, job: str, instance: str) -> Exported:
    """The series with the labels that a scrape adds."""
    return {tuple(sorted({**dict(x), "job": job, "instance": instance}.items())): found[x] for x in found}


def made(found: Exported) -> dict[Labels, np.ndarray]:
    """STEPS values of each series: a wave with noise, a hundred times of it at the end; counters add up."""
    random = np.random.default_rng(3)
    out = {}
    for labels, kind in found.items():
        wave = 1e7 * (2 + np.sin(np.arange(STEPS) / 4) + random.uniform(0, 0.2, STEPS))
        wave[-ODD:] *= 0.01 if "free" in labels[0][1] else 100
        is_counter = kind in ("counter", "unknown", "untyped")
        out[labels] = np.cumsum(wave) if is_counter else wave
    return out


def is_forecast(product: Product) -> bool:
    """Whether the next steps have forecasts; what is pushed comes faster than they do."""
    told = product.total("openanomaly_window_series_with_forecast")
    return product.total(WRITTEN) > 0 and told > 0.9 * product.total("openanomaly_window_series")


def is_told(store: VictoriaMetrics, last_ms: int) -> bool:
    """Whether the steps before the last samples have scores: of a host, of a cluster, and of their groups."""
    ends = {'for="node_load1"': last_ms, 'for="kubelet_running_pods"': last_ms}
    # The last step of a group ends with its last series, which may be a minute behind.
    ends |= {f'for="anomaly_rate",{of}': last_ms - MINUTE_MS for of in ('job="node"', 'namespace="shop"')}
    found = {matchers: store.export(f"anomaly_score{{{matchers}}}") for matchers in ends}
    return all(any(ends[each] in samples for samples in found[each].values()) for each in ends)


def scrape(product: Product, store: VictoriaMetrics, at_ms: int) -> None:
    """Keep the product's own metrics, as of a time."""
    page = get(f"{product.url}/metrics")
    for each in (OWN, ALONE):
        labels = "&".join(f"extra_label={name}={value}" for name, value in each.items())
        url = f"{store.url}/api/v1/import/prometheus?timestamp={at_ms}&{labels}"
        with urllib.request.urlopen(urllib.request.Request(url, page), timeout=30):
            pass


def stored(store: VictoriaMetrics) -> dict[str, frozenset[str]]:
    """Labels of every metric that is stored."""
    out: dict[str, set[str]] = {}
    for labels in store.export('{__name__!=""}'):
        out.setdefault(dict(labels)["__name__"], set()).update(name for name, _ in labels)
    return {name: frozenset(labels) for name, labels in out.items()}
