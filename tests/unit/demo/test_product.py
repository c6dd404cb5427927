"""What the demo sets of the product, and what it leaves to its user."""

import socket
from pathlib import Path

import pytest

from openanomaly.demo.product import HOST, Product, free_port
from openanomaly.errors import ConfigError
from openanomaly.settings import Settings


def test_all_but_the_stated_deviations_is_as_in_the_product(tmp_path: Path) -> None:
    found = Product(tmp_path, 1234, {}).settings.model_dump()
    default = Settings().model_dump()
    changed = {
        f"{group}.{name}"
        for group in default
        if group != "pipelines"
        for name in default[group]
        if found[group][name] != default[group][name]
    }
    assert changed == {
        "broker.url",
        "broker.partitions",
        "inference.max_wait_s",
        "sink.emit",
        "sink.series",
        "web.listen",
    }
    (pipeline,), (usual,) = found["pipelines"], default["pipelines"]
    assert {k for k in usual if pipeline[k] != usual[k]} == {"name", "step_s"}
    assert found["broker"]["url"] == f"embedded://{tmp_path}/broker"
    assert found["web"]["listen"] == f"{HOST}:1234"


def test_flags_set_the_product_but_not_what_is_the_demos(tmp_path: Path) -> None:
    flags = {"pipelines": "[{name: a, step_s: 300, score: {tolerance: 10}}]", "inference.threads": "1"}
    settings = Product(tmp_path, 1234, flags).settings
    assert settings.pipelines[0].score.tolerance == 10
    assert settings.inference.threads == 1
    for name in ("broker.url", "web.listen", "sink.url"):
        with pytest.raises(ConfigError, match=f"--set {name}: the demo sets it itself"):
            Product(tmp_path, 1234, {name: "x"})


@pytest.mark.parametrize("value", ["[{name: a}]", "[{name: a, step_s: 300}, {name: b, step_s: 300}]"])
def test_pipelines_that_do_not_fit_the_fleet_are_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigError, match="one pipeline, with step_s: 300"):
        Product(tmp_path, 1234, {"pipelines": value})


def test_settings_of_the_users_own_product_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENANOMALY_BROKER_URL", "kafka://production:9092")
    monkeypatch.setenv("OPENANOMALY_SINK_EMIT", "episodes")
    settings = Product(tmp_path, 1234, {}).settings
    assert settings.broker.url.startswith("embedded://")
    assert settings.sink.emit == "all"


def test_a_port_that_is_taken_is_an_error_and_zero_is_a_free_one() -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on {HOST}:{port}: .*; choose another --port"):
            free_port(port)
        free = free_port(0)
        assert free not in (0, port)
        assert free_port(free) == free
