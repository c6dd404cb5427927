"""`openanomaly migrate`: what is wrong with how it is called is said before anything is touched."""

from pathlib import Path

import pytest

from openanomaly.cli import main
from openanomaly.exits import CONFIG


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["http://x", "embedded://after"], "expected embedded://PATH or kafka://HOST:PORT"),
        (["embedded://", "embedded://after"], "expected embedded://PATH"),
        (
            ["embedded://before", "embedded://after", "--partitions", "0"],
            "broker.partitions = '0': allowed: at least 1",
        ),
        (["embedded://before", "embedded://after", "--set", "sink.emit"], "expected NAME=VALUE"),
        (["embedded://before", "embedded://after", "--target-prefix", "a b"], "broker.topic_prefix"),
        (["embedded://before", "embedded://after", "--source-set", "broker.replicas=3"], "no such setting"),
        (["embedded://before", "embedded://after", "--config", "none.yaml"], "none.yaml"),
        (["embedded://before", "embedded://after"], "no embedded broker in before"),
    ],
)
def test_what_cannot_be_is_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    text: str,
) -> None:
    monkeypatch.chdir(tmp_path)

    status = main(["migrate", *words])

    assert status == CONFIG
    assert text in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
