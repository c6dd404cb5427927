"""`openanomaly api`: what it needs, and what it says where that is missing."""

import json
import socket
import sys
from pathlib import Path

import pytest

import openanomaly.api
from openanomaly.api import app
from openanomaly.cli import main
from openanomaly.exits import CONFIG


def run(*flags: str) -> int:
    return main(["api", *flags])


def test_a_dry_run_says_what_would_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "pipelines.yaml"
    store.write_text("pipelines: []\n")
    flags = ["--set", f"store.url={store}", "--set", "api.admin_url=http://me:hunter2@window:9201"]
    assert run("--listen", ":0", *flags, "--dry-run") == 0
    out = capsys.readouterr().out
    assert json.loads(out)["starts"] == [
        "API on :0",
        f"pipelines in {store}",
        "series are counted by http://**********@window:9201",
    ]
    assert "hunter2" not in out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "store.url is not set"),
        (("--set", "store.url=ftp://x/y"), "store.url"),
        (
            ("--set", "store.url=S", "--set", "api.auth.bearer_token_file=/none"),
            "api.auth.bearer_token_file=/none",
        ),
        (
            ("--set", "store.url=S", "--set", "api.tls.cert_file=/c", "--set", "api.tls.key_file=/k"),
            "api.tls",
        ),
        (
            (
                "--set",
                "store.url=S",
                "--set",
                "api.admin_url=http://a",
                "--set",
                "api.admin_token_file=/none",
            ),
            "api.admin_token_file=/none",
        ),
        (
            ("--set", "store.url=S", "--set", "api.admin_url=https://a", "--set", "api.admin_ca_file=/none"),
            "api.admin_ca_file=/none",
        ),
        (
            ("--set", "store.url=S", "--set", "api.admin_url=nonsense"),
            "expected http://HOST:PORT, found 'nonsense'",
        ),
    ],
)
def test_settings_that_cannot_be_used_are_named(
    flags: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = tuple(flag.replace("store.url=S", f"store.url={tmp_path}") for flag in flags)
    assert run(*flags) == CONFIG
    assert message in capsys.readouterr().err


def test_an_address_that_is_taken_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert run("--set", f"store.url={tmp_path}", "--listen", address) == CONFIG
    assert f"cannot listen on {address}" in capsys.readouterr().err


def test_what_is_not_installed_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, app.__name__)
    monkeypatch.delattr(openanomaly.api, "app")
    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert run("--set", f"store.url={tmp_path}") == CONFIG
    assert "pip install 'openanomaly[api]'" in capsys.readouterr().err
