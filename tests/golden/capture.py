"""Records what real senders push: `uv run python tests/golden/capture.py [SENDER ...]`.

Prometheus 2 (remote-write 1.0), Prometheus 3 (1.0 and 2.0) and vmagent scrape the same targets at the
same time and push to an endpoint that keeps every request. Then each sender is asked, through its own
API, which values it holds. README.md beside this file says what is written where.
"""

import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from parts import exporters, prometheus, victoria
from parts.part import get, wait_until
from parts.recorder import Recorder, recorder

HERE = Path(__file__).parent
SCRAPES_S = 6.0
KEPT_HEADERS = ("content-type", "content-encoding", "user-agent", "x-prometheus-remote-write-version")
COLLECTORS = (
    "--collector.disable-defaults",
    *(f"--collector.{name}" for name in ("cpu", "loadavg", "meminfo")),
)

PAGE = r"""# HELP http_requests_total Requests by code.
# TYPE http_requests_total counter
http_requests_total{method="post",code="200"} 1027
http_requests_total{method="post",code="400"} 3
# HELP temperature_celsius Every kind of value.
# TYPE temperature_celsius gauge
temperature_celsius{room="north"} -12.75
temperature_celsius{room="precise"} 0.1234567890123
temperature_celsius{room="big"} 1.5e+300
temperature_celsius{room="zero"} 0
temperature_celsius{room="nothing"} NaN
temperature_celsius{room="hot"} +Inf
temperature_celsius{room="cold"} -Inf
# HELP label_values Every kind of label value.
# TYPE label_values gauge
label_values{v="Größe: 30 µm, 温度, 🌡"} 1
label_values{v="line\nbreak"} 2
label_values{v="\"quoted\" and back\\slash"} 3
label_values{v="C:\\DIR\\FILE.TXT"} 4
label_values{v=""} 5
label_values{zz="last",v="two",a="unsorted"} 6
label_values{v=" blanks "} 7
# HELP request_seconds A classic histogram.
# TYPE request_seconds histogram
request_seconds_bucket{le="0.05"} 24054
request_seconds_bucket{le="0.5"} 129389
request_seconds_bucket{le="+Inf"} 144320
request_seconds_sum 53423.5
request_seconds_count 144320
# HELP rpc_seconds A summary.
# TYPE rpc_seconds summary
rpc_seconds{quantile="0.5"} 4773
rpc_seconds{quantile="0.99"} 76656.25
rpc_seconds_sum 17560473
rpc_seconds_count 2693
# A line without type or help, and one with a timestamp of its own.
untyped 12.5
with_timestamp 3.25 @TIMESTAMP@
"""
LEAVING = "going_away 1\n"  # on the page at first: its end is told by a staleness marker

OPENMETRICS = """# TYPE jobs counter
# HELP jobs Jobs done.
jobs_total{queue="mail"} 17.0 # {trace_id="KOO5S4vxi0o"} 0.67
# TYPE size_bytes histogram
size_bytes_bucket{le="100.0"} 2 # {trace_id="oHg5SJYRHA0"} 9.8
size_bytes_bucket{le="1000.0"} 5
size_bytes_bucket{le="+Inf"} 6
size_bytes_count 6
size_bytes_sum 2400.5
# EOF
"""


class Sender:
    """One sender: how it is run and how its values are read back."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.held: Recorder
        self.api: prometheus.Prometheus | victoria.VictoriaMetrics

    @contextlib.contextmanager
    def running(self, targets: dict[str, str]) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            self.held = stack.enter_context(recorder())
            if self.name == "vmagent":
                store = stack.enter_context(victoria.victoria_metrics(root))
                also = f"-remoteWrite.url={store.write_url}"  # it has no API: a store beside the recorder has
                stack.enter_context(victoria.vmagent(root, targets, self.held.url, also))
                self.api = store
            else:
                version, message = {
                    "prometheus-2": (2, 1),
                    "prometheus-3": (3, 1),
                    "prometheus-3-v2": (3, 2),
                }[self.name]
                sender = prometheus.prometheus(
                    root, targets, self.held.url, version=version, message=message, everything=True
                )
                self.api = stack.enter_context(sender)
            yield

    def values(self, through_ms: int) -> list[dict[str, Any]]:
        """Every series it holds, with its samples until `through_ms`."""
        series: list[dict[str, Any]] = []
        if isinstance(self.api, victoria.VictoriaMetrics):
            for labels, samples in self.api.export('{__name__!=""}').items():
                # NaN is left out: the store does not tell a plain one from a staleness marker.
                pairs = [[t, repr(v)] for t, v in sorted(samples.items()) if t <= through_ms and v == v]
                series.append({"labels": dict(labels), "samples": pairs})
        else:
            for row in self.api.query_range_vector('{__name__!=""}', through_ms / 1000):
                pairs = [[round(t * 1000), v] for t, v in row.get("values", ())]
                series.append({"labels": row["metric"], "samples": pairs})
        return sorted((s for s in series if s["samples"]), key=lambda s: sorted(s["labels"].items()))

    def version(self) -> str:
        if isinstance(self.api, victoria.VictoriaMetrics):
            return next(r.headers.get("User-Agent", "") for r in self.held.requests)
        info = json.loads(get(f"{self.api.url}/api/v1/status/buildinfo"))["data"]
        return f"Prometheus {info['version'] or prometheus.MODULE.split('@')[1]}"

    def write(self, through_ms: int, values: list[dict[str, Any]], version: str) -> None:
        folder = HERE / self.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        requests = []
        for i, request in enumerate(self.held.requests):
            file = folder / f"{i:02}.bin"
            file.write_bytes(request.body)
            headers = {k.lower(): v for k, v in request.headers.items() if k.lower() in KEPT_HEADERS}
            requests.append({"file": file.name, "headers": headers})
        capture = {"sender": version, "captured": time.strftime("%Y-%m-%d"), "through_ms": through_ms}
        lines = ",\n".join("  " + json.dumps(s, ensure_ascii=False, sort_keys=True) for s in values)
        head = json.dumps({**capture, "requests": requests}, indent=1)[:-2]
        (folder / "capture.json").write_text(f'{head},\n "series": [\n{lines}\n ]\n}}\n')


def main() -> None:
    names = sys.argv[1:] or ["prometheus-2", "prometheus-3", "prometheus-3-v2", "vmagent"]
    senders = [Sender(name) for name in names]
    text = PAGE.replace("@TIMESTAMP@", str(round(time.time() - 30) * 1000))
    page = exporters.Page(text + LEAVING)
    openmetrics = exporters.Page(OPENMETRICS)
    openmetrics.content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8"
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        targets = {
            "page": stack.enter_context(exporters.serve(page)),
            "openmetrics": stack.enter_context(exporters.serve(openmetrics)),
            "node": stack.enter_context(exporters.node_exporter(root, *COLLECTORS)),
        }
        for sender in senders:
            stack.enter_context(sender.running(targets))
        for sender in senders:
            wait_until(lambda held=sender.held: held.requests, sender.name)
        time.sleep(SCRAPES_S / 2)
        page.text = text
        time.sleep(SCRAPES_S / 2)
        # A scrape that began half a second ago is in by now, and pushed two seconds later.
        through_ms = round(time.time() * 1000) - 500
        values = [sender.values(through_ms) for sender in senders]
        time.sleep(2.0)
        values = [sender.values(through_ms) for sender in senders]
        for sender, held in zip(senders, values, strict=True):
            sender.write(through_ms, held, sender.version())
            size = sum(file.stat().st_size for file in (HERE / sender.name).iterdir())
            print(f"{sender.name}: {len(sender.held.requests)} requests, {len(held)} series, {size} bytes")


if __name__ == "__main__":
    main()
