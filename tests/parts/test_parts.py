"""The real parts answer: what a Prometheus or vmagent scrapes arrives at the address it was given."""

import subprocess
import sys
from pathlib import Path

import pytest
import snappy

from parts import debian, exporters, mock_kafka, part, prometheus, victoria
from parts.part import wait_until
from parts.recorder import recorder


@pytest.mark.parametrize("sender", ["prometheus", "vmagent"])
def test_a_sender_pushes_what_it_scrapes(tmp_path: Path, sender: str) -> None:
    page = exporters.Page("first_seen 1\n")
    with recorder() as held, exporters.serve(page) as target:
        push = prometheus.prometheus if sender == "prometheus" else victoria.vmagent
        with push(tmp_path, {"page": target}, held.url):
            wait_until(lambda: any(b"first_seen" in snappy.decompress(r.body) for r in held.requests), sender)

    assert held.requests[0].headers["Content-Encoding"] == "snappy"


def test_a_store_gives_back_what_was_pushed_to_it(
    tmp_path: Path, victoria_metrics: victoria.VictoriaMetrics, node_exporter: str
) -> None:
    with prometheus.prometheus(tmp_path, {"node": node_exporter}, victoria_metrics.write_url) as sender:
        wait_until(lambda: len(sender.query_range_vector("node_load1")) == 1, "a scrape")
        wait_until(lambda: victoria_metrics.export("node_load1"), "a push")
        [(labels, samples)] = victoria_metrics.export("node_load1").items()
        [queried] = sender.query_range_vector("node_load1")

    assert dict(labels) == queried["metric"]
    expected = {round(t * 1000): float(v) for t, v in queried["values"]}
    assert samples.items() <= expected.items()
    assert samples


def test_a_part_is_installed_by_one_process_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENANOMALY_PARTS", str(tmp_path))
    other = [sys.executable, "-c", "from parts.part import installing\nwith installing('x'): print('in')"]
    with part.installing("x"):
        process = subprocess.Popen(other, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1])
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2)
    assert process.communicate(timeout=30)[0] == b"in\n"


def test_the_mock_broker_answers() -> None:
    with mock_kafka.mock_kafka(2) as cluster:
        assert len(cluster.address.split(",")) == 2


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_a_missing_part_is_an_error_in_ci_and_a_skip_elsewhere(
    monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="apt-get install thing"):
        part.missing("the thing", "apt-get install thing")


def test_a_program_is_found_by_the_name_it_has_in_other_distributions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert debian.find("prometheus-node-exporter") is None
    for name in ("node_exporter", "prometheus-node-exporter"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
        assert debian.find("prometheus-node-exporter") == str(tmp_path / name)
    assert debian.find("promtool") is None
