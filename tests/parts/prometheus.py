"""A real Prometheus that scrapes and pushes: version 2 from Debian, version 3 built with Go.

Version 3 speaks remote-write 2.0. It takes minutes to build, so it is no part of the tests: commands
that are run now and then use it. `python tests/parts/install.py prometheus3` builds it into `.parts/bin`.
"""

import contextlib
import json
import shutil
import subprocess
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from parts.debian import program
from parts.part import HOST, PartError, Process, answers, free_port, get, home, running

MODULE = "github.com/prometheus/prometheus/cmd/prometheus@v0.316.0"
MESSAGES = {1: "prometheus.WriteRequest", 2: "io.prometheus.write.v2.Request"}


@dataclass(frozen=True)
class Prometheus:
    url: str
    process: Process

    def query_range_vector(self, selector: str, at_s: float | None = None) -> list[dict[str, Any]]:
        """Raw samples of the hour before `at_s` (now): the `result` of an instant query of `selector[1h]`."""
        at = {} if at_s is None else {"time": f"{at_s:.3f}"}
        query = urllib.parse.urlencode({"query": f"{selector}[1h]", **at})
        answer = json.loads(get(f"{self.url}/api/v1/query?{query}", timeout_s=30))
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def samples_failed(self) -> float:
        """Samples of remote-write that failed, were dropped or are retried, by its own count."""
        names = ("failed_total", "dropped_total", "retried_total")
        total = 0.0
        for line in get(f"{self.url}/metrics").decode().splitlines():
            if line.startswith(tuple(f"prometheus_remote_storage_samples_{name}" for name in names)):
                total += float(line.rsplit(" ", 1)[1])
        return total


def install_version_3() -> Path:
    """The path of Prometheus 3, built when it is missing (about 3 CPU-minutes)."""
    path = home() / "bin" / "prometheus"
    if path.exists():
        return path
    go = shutil.which("go")
    if go is None:
        raise PartError("Prometheus 3 is built with Go; install Go 1.26 or newer")
    # Without the tag it links the libraries of every cloud.
    command = ["env", f"GOBIN={path.parent}", go, "install", "-tags", "remove_all_sd", MODULE]
    subprocess.run(command, stdin=subprocess.DEVNULL, check=True)
    return path


@contextlib.contextmanager
def prometheus(
    root: Path,
    targets: dict[str, str],
    write_url: str | None = None,
    *,
    version: Literal[2, 3] = 2,
    message: Literal[1, 2] = 1,
    scrape_interval_s: float = 1.0,
    external_labels: dict[str, str] | None = None,
    everything: bool = False,
    receives: bool = False,
) -> Iterator[Prometheus]:
    """A running Prometheus that scrapes `targets` (job -> HOST:PORT) and pushes all of it to `write_url`.

    `everything`: with metadata and exemplars, in version 3 also native histograms, made of classic ones
    where a target speaks OpenMetrics. `receives`: takes remote-write itself, on /api/v1/write.
    """
    path = program("prometheus") if version == 2 else str(install_version_3())
    port = free_port()
    interval = f"{round(scrape_interval_s * 1000)}ms"
    write: dict[str, Any] = {"url": write_url, "queue_config": {"batch_send_deadline": "500ms"}}
    if version == 3:
        write["protobuf_message"] = MESSAGES[message]
    scraped: list[dict[str, Any]] = [
        {"job_name": job, "static_configs": [{"targets": [target]}]} for job, target in targets.items()
    ]
    flags: list[str] = []
    if everything:
        flags = ["--enable-feature=exemplar-storage" + (",metadata-wal-records" if message == 2 else "")]
        write |= {"send_exemplars": True}
        if message == 1:
            write |= {"metadata_config": {"send_interval": "2s"}}
        if version == 3:
            write |= {"send_native_histograms": True}
            for job in scraped:
                is_converted = job["job_name"] == "openmetrics"
                job |= {"convert_classic_histograms_to_nhcb": is_converted, "scrape_native_histograms": True}
    config: dict[str, Any] = {
        "global": {"scrape_interval": interval, "scrape_timeout": interval},
        "scrape_configs": scraped,
        "remote_write": [write] if write_url else [],
    }
    config["global"]["external_labels"] = external_labels or {}
    file = root / f"prometheus-{version}-{message}.yml"
    file.write_text(json.dumps(config))  # JSON is YAML
    process = Process(
        [
            path,
            f"--config.file={file}",
            f"--storage.tsdb.path={root / f'prometheus-{version}-{message}'}",
            f"--web.listen-address={HOST}:{port}",
            *(["--web.enable-remote-write-receiver"] if receives else []),
            *flags,
        ],
        root / f"prometheus-{version}-{message}.log",
    )
    url = f"http://{HOST}:{port}"
    with running(process):
        process.wait_until_ready(answers(f"{url}/-/ready"))
        yield Prometheus(url, process)
