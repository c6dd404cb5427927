"""`openanomaly probe` against a running installation: what it finds, and what it says when it does not."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from parts.product import Product

TOKEN = "t0ken"
PIPELINES: list[dict[str, Any]] = [
    {"name": "default"},
    {"name": "below", "score": {"direction": "below"}},
    {"name": "rate", "transform": "rate", "step_s": 15},
    {"name": "share", "score": {"data_range": [0, 1]}},
    {"name": "positive", "score": {"data_range": [0, "inf"], "direction": "below"}},
    {"name": "rough", "score": {"min_deviation": 50, "min_relative_deviation": 0.7, "scale": [2, 3]}},
    {"name": "hourly", "step_s": 3600, "score": {"quiet": 6}},
]


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """With a token, and pipelines that each select a series of their own."""
    root = tmp_path_factory.mktemp("product")
    pipelines = [{**each, "selector": f'{{kind="{each["name"]}"}}'} for each in PIPELINES]
    config = {"web": {"auth": {"bearer_token": TOKEN}}, "broker": {"partitions": 2}, "pipelines": pipelines}
    running = Product(root, "--broker", f"embedded://{root / 'broker'}", config=config)
    try:
        running.start()
        yield running
    finally:
        running.stop()


def probe(product: Product, *flags: str) -> subprocess.CompletedProcess[str]:
    config = product.process.command[product.process.command.index("--config") + 1]
    command = [sys.executable, "-m", "openanomaly.cli", "probe", "--receiver", product.url]
    command += ["--config", config, "--timeout", "60", *flags]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", [each["name"] for each in PIPELINES])
def test_its_spike_is_found_whatever_a_pipeline_looks_for(product: Product, name: str) -> None:
    done = probe(product, "--label", f"kind={name}")
    assert done.returncode == 0, done.stderr
    assert f"for pipeline {name}\nthe spike scores " in done.stdout


def test_what_nobody_selects_is_said_before_anything_is_pushed(product: Product) -> None:
    done = probe(product, "--label", "kind=nobody's")
    assert done.returncode == 2
    assert "no pipeline selects" in done.stderr
    assert "--label" in done.stderr
    done = probe(product, "--label", "kind=default", "--pipeline", "below")
    assert (done.returncode, done.stdout) == (2, "")


def test_credentials_that_are_not_taken_are_said(product: Product, tmp_path: Path) -> None:
    other = {"web": {"auth": {"bearer_token": "0ther"}}, "pipelines": [{"name": "default"}]}
    (tmp_path / "other.yaml").write_text(json.dumps(other))
    done = probe(product, "--config", str(tmp_path / "other.yaml"), "--timeout", "0")
    assert done.returncode == 1
    assert "answers 401: authentication required" in done.stderr


def test_where_clients_must_show_a_certificate_it_shows_one(tmp_path: Path) -> None:
    authority = trustme.CA()
    cert = authority.issue_cert("127.0.0.1")
    files = {name: str(tmp_path / name) for name in ("ca", "cert", "key")}
    authority.cert_pem.write_to_path(files["ca"])
    cert.cert_chain_pems[0].write_to_path(files["cert"])
    cert.private_key_pem.write_to_path(files["key"])
    tls = {"cert_file": files["cert"], "key_file": files["key"], "client_ca_file": files["ca"]}
    config = {"web": {"tls": tls}, "broker": {"partitions": 1}, "pipelines": [{"name": "all"}]}
    running = Product(tmp_path, "--broker", f"embedded://{tmp_path / 'broker'}", config=config)
    url = running.url.replace("http:", "https:")
    shown = ["--receiver", url, "--ca-file", files["ca"], "--cert-file", files["cert"]]
    try:
        running.process.start()
        done = probe(running, *shown, "--key-file", files["key"])
        assert done.returncode == 0, done.stderr
        assert probe(running, "--receiver", url, "--ca-file", files["ca"], "--timeout", "0").returncode == 1
        done = probe(running, *shown)
        assert (done.returncode, done.stdout) == (2, "")
        assert "--cert-file and --key-file must be given together" in done.stderr
        done = probe(running, *shown, "--key-file", files["ca"])
        assert done.returncode == 2
        assert "cannot load --cert-file" in done.stderr
    finally:
        running.stop()


def test_a_target_that_takes_nothing_is_no_success(tmp_path: Path) -> None:
    """The score is on the page, and who asks the database finds nothing."""
    running = Product(
        tmp_path,
        "--broker",
        f"embedded://{tmp_path / 'broker'}",
        config={
            "broker": {"partitions": 1},
            "sink": {"url": "http://127.0.0.1:9/"},
            "pipelines": [{"name": "all"}],
        },
    )
    try:
        running.start()
        done = probe(running, "--timeout", "10")
        assert done.returncode == 1
        assert "the target of scores does not take them" in done.stderr
    finally:
        running.stop()


def test_no_episode_is_left_open(product: Product) -> None:
    """Nobody is paged for a test, nor for one after another, of a series of its own each."""
    done = probe(product, "--label", "kind=default")
    assert done.returncode == 0
    asked = urllib.request.Request(
        f"{product.url}/api/v1/anomalies?pipeline=default", headers={"Authorization": f"Bearer {TOKEN}"}
    )
    with urllib.request.urlopen(asked, timeout=10) as answer:
        found = json.load(answer)["anomalies"]
    assert {each["state"] for each in found} == {"ended"}
