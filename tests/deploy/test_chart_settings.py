"""What the chart starts, the product takes: command, settings, variables and files of every pod."""

from collections.abc import Iterator
from pathlib import Path

import pymongo
import pytest
import trustme

from deploy.chart import SHAPES, pods, render
from deploy.kubelet import Kubelet
from openanomaly import cli
from openanomaly.settings.sources import PREFIX
from parts import mongo

PODS = [(shape, role) for shape in SHAPES for role in pods(render(shape))]
ELSEWHERE = {"amazon/chronos-bolt-small": "auto", "device: cuda": "device: cpu"}
"""A checkpoint on the hub and a GPU: no test has them."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a MongoDB with one pipeline."""
    with mongo.server(tmp_path_factory.mktemp("mongo")) as server:
        with pymongo.MongoClient(server.url()) as client:
            client.openanomaly.pipelines.insert_one({"_id": "api", "definition": {"selector": "{job='api'}"}})
        yield server.url()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    authority = trustme.CA()
    cert = authority.issue_cert("openanomaly.test")
    return {
        "ca.crt": authority.cert_pem.bytes().decode(),
        "tls.crt": cert.cert_chain_pems[0].bytes().decode(),
        "tls.key": cert.private_key_pem.bytes().decode(),
    }


@pytest.mark.parametrize(("shape", "role"), PODS)
def test_the_product_takes_what_a_pod_gives_it(
    shape: str,
    role: str,
    tmp_path: Path,
    certificates: dict[str, str],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    variables = {"OPENANOMALY_SINK_PASSWORD": "a", "OPENANOMALY_BROKER_SASL_PASSWORD": "b"}
    if shape == "mongo-api":
        variables = {
            "OPENANOMALY_STORE_URL": request.getfixturevalue("store"),
            "OPENANOMALY_API_AUTH_BEARER_TOKEN": "c",
        }
    elif shape == "playground":
        variables = {
            "OPENANOMALY_PLAYGROUND_AUTH_USERNAME": "a",
            "OPENANOMALY_PLAYGROUND_AUTH_PASSWORD": "b",
            "OPENANOMALY_PULL_PASSWORD": "c",
        }
    elif shape == "everything":
        # Its credentials are in files, and pipelines in a store as the API wants them.
        (tmp_path / "all.yaml").write_text("pipelines: [{name: all}, {name: asked, query: up}]")
        variables = {"OPENANOMALY_STORE_URL": f"yaml:{tmp_path / 'all.yaml'}"}
    kubelet = Kubelet(
        render(shape),
        tmp_path,
        ELSEWHERE,
        {
            "openanomaly-credentials": variables,
            "openanomaly-tokens": {"senders": "a", "admins": "b", "target": "c", "people": "d"},
            **dict.fromkeys(("kafka-ca", "kafka-client", "openanomaly-web", "authorities"), certificates),
            "hub": {"token": "word"},
        },
    )
    process = kubelet.process(role)
    for name, value in (process.env or {}).items():
        if name.startswith(PREFIX):
            monkeypatch.setenv(name, value)
    arguments = process.command[process.command.index("openanomaly.cli") + 1 :]
    if role == "test":
        # Nobody is there, which it finds out behind its settings, labels and certificates.
        assert cli.main([*arguments, "--timeout", "0"]) == 1
        assert "no answer within 0 s" in capsys.readouterr().err
    else:
        assert cli.main([*arguments, "--dry-run"]) == 0, capsys.readouterr().err
