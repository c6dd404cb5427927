"""The command line as a process: what it prints, and its exit status."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from logs import opened
from openanomaly.cli import ROLES, main


def openanomaly(folder: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    ours = {k: v for k, v in os.environ.items() if not k.startswith("OPENANOMALY_")}
    return subprocess.run(
        [sys.executable, "-m", "openanomaly.cli", *words],
        cwd=folder,
        env={**ours, **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_version(tmp_path: Path) -> None:
    done = openanomaly(tmp_path, "version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"openanomaly {version('openanomaly')} (Python 3.")


def test_the_installed_command_is_the_same(tmp_path: Path) -> None:
    command = Path(sys.executable).parent / "openanomaly"
    done = subprocess.run([command, "version"], capture_output=True, text=True, check=True)
    assert done.stdout == openanomaly(tmp_path, "version").stdout


@pytest.mark.parametrize("words", [["version"], ["run", "--set", "broker.partitions=0"]])
def test_what_starts_nothing_loads_nothing_heavy(tmp_path: Path, words: list[str]) -> None:
    script = (
        "import sys; from openanomaly.cli import main; main(sys.argv[1:]);"
        "print(*(name for name in ('faust', 'aiohttp', 'aiokafka', 'uvloop') if name in sys.modules), sep='')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *words], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == ""


@pytest.mark.parametrize("command", ROLES)
def test_a_dry_run_says_what_would_run_and_starts_nothing(tmp_path: Path, command: str) -> None:
    done = openanomaly(
        tmp_path, command, "--dry-run", "--write-to", "http://me:hunter2@127.0.0.1:1/write", "--listen", ":0"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "hunter2" not in done.stdout
    said = json.loads(done.stdout)
    assert said["command"] == command
    assert said["roles"] == list(ROLES[command])
    assert "web server on :0" in said["starts"]
    assert "scores to http://127.0.0.1:1/write" in said["starts"]
    assert said["settings"]["broker"]["partitions"] == 16
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_of_pull_mode_starts_nothing(tmp_path: Path) -> None:
    pipelines = [{"name": "cpu", "query": "sum(x)", "step_s": 30}, {"name": "pushed"}]
    config = {"pull": {"url": "http://me:hunter2@127.0.0.1:1/prometheus"}, "pipelines": pipelines}
    (tmp_path / "a.yaml").write_text(json.dumps(config))
    done = openanomaly(
        tmp_path, "pull", "--dry-run", "--config", "a.yaml", "--write-to", "http://127.0.0.1:2"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "hunter2" not in done.stdout
    said = json.loads(done.stdout)
    assert said["roles"] == ["pull"]
    assert "queries to http://127.0.0.1:1/prometheus" in said["starts"]
    assert "pipeline cpu: every 30 s sum(x)" in said["starts"]
    assert "scores to http://127.0.0.1:2/api/v1/write" in said["starts"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.yaml"]


@pytest.mark.parametrize("command", ROLES)
def test_a_dry_run_loads_models_where_they_forecast_only(tmp_path: Path, command: str) -> None:
    """The machines of other roles have no GPU, no torch and no checkpoint."""
    pipelines = "pipelines=[{name: a, model: ./none.onnx}]"
    done = openanomaly(tmp_path, command, "--dry-run", "--set", pipelines, "--set", "inference.device=cuda")
    if "inference" in ROLES[command]:
        assert done.returncode == 2
        assert "none.onnx" in done.stderr
    else:
        assert (done.returncode, done.stderr) == (0, "")
        assert not [line for line in json.loads(done.stdout)["starts"] if line.startswith("model")]


@pytest.mark.parametrize(("command", "status"), [("window", 2), ("run", 2), ("inference", 0), ("sink", 0)])
def test_windows_need_the_extra_pull_where_new_series_learn_from_a_database(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    status: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "requests", None)
    for name in ("prometheus", "http_endpoint"):  # tests before this one may have loaded them
        monkeypatch.delitem(sys.modules, f"openanomaly.adapters.{name}", raising=False)
    words = [command, "--dry-run", "--set", "pull.url=http://a"]
    assert main(words) == status
    said = capsys.readouterr()
    assert ("pip install 'openanomaly[pull]'" in said.err) == (status == 2)
    assert main([*words, "--set", "backfill.history_s=0"]) == 0


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    ("config", "command", "message"),
    [
        ({"pull": {"url": "http://a"}}, "pull", "no pipeline has a query"),
        ({"pipelines": [{"name": "p", "query": "x"}]}, "pull", "pull.url is not set"),
        ({"pipelines": [{"name": "p", "query": "x"}]}, "window", "every pipeline has a query"),
        (
            {"pull": {"url": "http://a", "key_file": "k"}, "pipelines": [{"name": "p", "query": "x"}]},
            "pull",
            "pull.key_file=k needs pull.cert_file",
        ),
        ({"pull": {"url": "http://a", "key_file": "k"}}, "window", "pull.key_file=k needs pull.cert_file"),
    ],
)
def test_what_pull_mode_lacks_is_said(
    tmp_path: Path, config: dict[str, object], command: str, message: str, dry: list[str]
) -> None:
    (tmp_path / "a.yaml").write_text(json.dumps(config))
    done = openanomaly(tmp_path, command, "--config", "a.yaml", "--listen", "127.0.0.1:0", *dry)
    assert done.returncode == 2
    assert message in done.stderr


def test_flags_win_over_variables_and_those_over_the_default_file(tmp_path: Path) -> None:
    (tmp_path / "openanomaly.yaml").write_text(
        "broker: {partitions: 1}\nlog: {level: error}\nweb: {listen: ':1'}\n"
    )
    done = openanomaly(
        tmp_path,
        "run",
        "--dry-run",
        "--listen",
        ":3",
        "--set",
        "window.max_series=5",
        OPENANOMALY_WEB_LISTEN=":2",
        OPENANOMALY_LOG_LEVEL="debug",
    )
    settings = json.loads(done.stdout)["settings"]
    found = (settings["broker"]["partitions"], settings["log"]["level"], settings["web"]["listen"])
    assert found == (1, "debug", ":3")
    assert settings["window"]["max_series"] == 5


def test_the_file_may_be_named_by_flag_or_variable(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("broker: {partitions: 1}")
    (tmp_path / "b.yaml").write_text("broker: {partitions: 2}")
    named = openanomaly(tmp_path, "run", "--dry-run", OPENANOMALY_CONFIG="a.yaml")
    assert json.loads(named.stdout)["settings"]["broker"]["partitions"] == 1
    both = openanomaly(tmp_path, "run", "--dry-run", "--config", "b.yaml", OPENANOMALY_CONFIG="a.yaml")
    assert json.loads(both.stdout)["settings"]["broker"]["partitions"] == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "--config", "none.yaml"], "cannot read settings file none.yaml: No such file or directory"),
        (["run", "--broker", "redis://a"], "flag for broker.url: broker.url: expected embedded://PATH"),
        (["run", "--broker", "kafka://a:b"], "flag for broker.url: broker.url: expected kafka://HOST:PORT"),
        (
            ["run", "--dry-run", "--broker", "kafka://a", "--set", "broker.sasl_mechanism=PLAIN"],
            "needs broker.sasl_username and broker.sasl_password",
        ),
        (["sink", "--set", "sink.url"], "--set sink.url: expected NAME=VALUE"),
        (["demo", "--set", "sink.emit"], "--set sink.emit: expected NAME=VALUE"),
        (["demo", "--set", "sink.url=http://a/"], "--set sink.url: the demo sets it itself"),
        (["demo", "--set", "sink.emits=all"], "no such setting; did you mean sink.emit?"),
        (["demo", "--set", "pipelines=[{name: a}]"], "the demo needs one pipeline, with step_s: 300"),
        (["window", "--set", "window.max=1"], "--set window.max: no such setting; did you mean window."),
        (["run", "--dry-run", "--set", "pipelines=[{name: a, model: oracle}]"], "'oracle'"),
        (["run", "--dry-run", "--set", "pipelines=[{name: a, score: {channels: [x]}}]"], "'x'"),
        (["run", "--dry-run", "--set", "pipelines=[{name: a, min_context: 600}]"], "more than context=512"),
        (["run", "--dry-run", "--set", "pipelines=[{name: a, horizon: 8}]"], "more than horizon=8"),
        (["run", "--dry-run", "--set", "window.idle_ttl_s=10m"], "twice receiver.labels_every_s=600"),
        (
            ["run", "--dry-run", "--set", "web.tls.cert_file=a", "--set", "web.tls.key_file=b"],
            "web.tls.cert_file",
        ),
        (
            ["run", "--dry-run", "--set", "web.auth.bearer_token_file=none"],
            "cannot read web.auth.bearer_token_file=none: No such file or directory",
        ),
        (
            ["receiver", "--set", "web.admin_auth.username=a", "--set", "web.admin_auth.password_file=none"],
            "cannot read web.admin_auth.password_file=none: No such file or directory",
        ),
    ],
)
def test_wrong_settings_end_with_status_2_and_the_reason(
    tmp_path: Path, words: list[str], message: str
) -> None:
    done = openanomaly(tmp_path, *words)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_demo_whose_port_is_taken_ends_with_status_2_and_leaves_nothing(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = openanomaly(tmp_path, "demo", "--once", "--port", str(port), TMPDIR=str(tmp_path))
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}: " in done.stderr
    assert "choose another --port" in done.stderr
    assert (done.stdout, list(tmp_path.iterdir())) == ("", [])


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["walk"],
        ["run", "--walk"],
        ["run", "--log-level", "loud"],
        ["demo", "--series", "199"],
        ["demo", "--series", "many"],
        ["demo", "--seed", "-1"],
        ["demo", "--port", "65536"],
        ["demo", "--days", "0"],
    ],
)
def test_wrong_words_end_with_status_2_and_the_usage(tmp_path: Path, words: list[str]) -> None:
    done = openanomaly(tmp_path, *words)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: openanomaly")


def test_run_does_not_start_a_worker_again_that_cannot_listen(tmp_path: Path) -> None:
    done = openanomaly(tmp_path, "run", "--listen", "256.0.0.1:0")
    assert done.returncode == 2
    assert "cannot listen on 256.0.0.1:0" in done.stderr
    assert "starting it again" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_second_process_on_a_data_folder_ends_at_once_and_names_the_first(tmp_path: Path) -> None:
    async def run() -> subprocess.CompletedProcess[str]:
        async with opened(tmp_path / "data"):
            words = ("run", "--listen", "127.0.0.1:0", "--broker", f"embedded://{tmp_path / 'data'}")
            return await asyncio.to_thread(openanomaly, tmp_path, *words)

    done = asyncio.run(run())
    assert done.returncode == 2
    assert f"process {os.getpid()}" in done.stderr
    assert "starting it again" not in done.stderr


def test_a_dry_run_reads_the_store(tmp_path: Path) -> None:
    (tmp_path / "api.yaml").write_text("name: api\nstep_s: 15s\nmodel: statistical\n")
    done = openanomaly(tmp_path, "run", "--dry-run", OPENANOMALY_STORE_URL=".")
    assert (done.returncode, done.stderr) == (0, "")
    plan = json.loads(done.stdout)
    assert plan["settings"]["store"]["url"] == "."
    assert [(p["name"], p["step_s"]) for p in plan["settings"]["pipelines"]] == [("api", 15)]
    assert "windows of 512 steps of 15 s: pipelines api" in plan["starts"]


@pytest.mark.parametrize(
    ("store", "pipelines", "message"),
    [
        ("missing.yaml", "", "cannot read missing.yaml: No such file or directory"),
        ("a.yaml", "", "there is no pipeline in a.yaml: at least one is needed"),
        ("a.yaml", "name: a\nhorizon: 0\nstep: 5", "a.yaml, line 2: horizon = 0: allowed: at least 1"),
        ("a.yaml", "name: a\nhorizon: 0\nstep: 5", "a.yaml, line 3: no setting step; did you mean step_s?"),
        ("mongodb://me:hunter2@host", "", "expected PATH, yaml:PATH, file:///PATH or mongodb://HOST:PORT"),
    ],
)
def test_a_dry_run_says_what_is_wrong_with_the_store(
    tmp_path: Path, store: str, pipelines: str, message: str
) -> None:
    (tmp_path / "a.yaml").write_text(pipelines)
    done = openanomaly(tmp_path, "run", "--dry-run", "--set", f"store.url={store}")
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "hunter2" not in done.stderr
