"""A real VictoriaMetrics (target of scores) and vmagent (a sender of remote-write 1.0)."""

import contextlib
import json
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parts.debian import program
from parts.part import HOST, Process, answers, free_port, get, running

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class VictoriaMetrics:
    url: str
    process: Process

    @property
    def write_url(self) -> str:
        """Where remote-write requests go."""
        return f"{self.url}/api/v1/write"

    def export(self, *selectors: str) -> dict[Labels, dict[int, float]]:
        """Every stored sample of the selected series: labels, sorted -> timestamp_ms -> value.

        Queries are not used: they leave out the last moments and staleness markers on purpose. A
        timestamp stored twice is an error here if its values differ. NaN is a staleness marker.
        """
        get(f"{self.url}/internal/force_flush")
        query = urllib.parse.urlencode([("match[]", selector) for selector in selectors])
        series: dict[Labels, dict[int, float]] = {}
        for line in get(f"{self.url}/api/v1/export?{query}", timeout_s=60).splitlines():
            # This version writes infinities as +Inf, which is not JSON.
            head, _, values_on = line.rpartition(b'"values":')
            infinite = values_on.replace(b"+Inf", b"Infinity").replace(b"-Inf", b"-Infinity")
            row: dict[str, Any] = json.loads(head + b'"values":' + infinite)
            held = series.setdefault(tuple(sorted(row["metric"].items())), {})
            for timestamp, value in zip(row["timestamps"], row["values"], strict=True):
                value = float("nan") if value is None else float(value)
                known = held.get(timestamp, value)
                assert str(known) == str(value), f"{row['metric']} at {timestamp}: {known} and {value}"
                held[timestamp] = value
        return series


@contextlib.contextmanager
def victoria_metrics(root: Path, *flags: str) -> Iterator[VictoriaMetrics]:
    """A running single-node VictoriaMetrics, empty, that keeps samples of any age."""
    port = free_port()
    process = Process(
        [
            program("victoria-metrics"),
            f"-storageDataPath={root / 'victoria-metrics'}",
            f"-httpListenAddr={HOST}:{port}",
            "-retentionPeriod=100y",
            "-memory.allowedBytes=256MB",
            *flags,
        ],
        root / "victoria-metrics.log",
    )
    url = f"http://{HOST}:{port}"
    with running(process):
        process.wait_until_ready(answers(f"{url}/health"))
        yield VictoriaMetrics(url, process)


@contextlib.contextmanager
def vmagent(
    root: Path, targets: dict[str, str], write_url: str, *flags: str, scrape_interval_s: float = 1.0
) -> Iterator[Process]:
    """A running vmagent that scrapes `targets` (job -> HOST:PORT) and pushes to `write_url`.

    It speaks plain remote-write 1.0 in this version: its own zstd protocol came later.
    """
    config = root / "vmagent.yml"
    scraped = [{"job_name": job, "static_configs": [{"targets": [it]}]} for job, it in targets.items()]
    interval = f"{round(scrape_interval_s * 1000)}ms"
    config.write_text(json.dumps({"global": {"scrape_interval": interval}, "scrape_configs": scraped}))
    port = free_port()
    process = Process(
        [
            program("vmagent"),
            f"-promscrape.config={config}",
            f"-remoteWrite.url={write_url}",
            f"-remoteWrite.tmpDataPath={root / 'vmagent-queue'}",
            f"-httpListenAddr={HOST}:{port}",
            *flags,
        ],
        root / "vmagent.log",
    )
    with running(process):
        process.wait_until_ready(answers(f"http://{HOST}:{port}/health"))
        yield process
