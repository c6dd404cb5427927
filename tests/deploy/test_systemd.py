"""The units of deploy/systemd are what systemd takes, closed, and start what they say."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from openanomaly import cli
from openanomaly.cli import ROLES
from openanomaly.exits import CONFIG
from openanomaly.settings.sources import load
from parts import debian

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "systemd"
ALONE, ROLE, GPU = "openanomaly.service", "openanomaly@.service", "gpu.conf"
EXPOSURE = 15
"""Tenths, from 0 (closed) to 100, as `systemd-analyze security` counts them: it calls up to 2 OK."""


def lines(unit: str) -> list[tuple[str, str]]:
    """The settings of a unit, in their order."""
    text = (FOLDER / unit).read_text().splitlines()
    parts = (line.partition("=") for line in text if line and not line.startswith(("#", "[")))
    return [(key, value) for key, _, value in parts]


def values(unit: str, key: str) -> list[str]:
    return [value for name, value in lines(unit) if name == key]


def variables(unit: str) -> dict[str, str]:
    return dict(word.split("=", 1) for line in values(unit, "Environment") for word in shlex.split(line))


def analyze(
    tmp_path: Path, unit: str, *words: str, drop_ins: Sequence[str] = ()
) -> "subprocess.CompletedProcess[str]":
    """What systemd-analyze says of a unit whose program is this machine's."""
    name = unit.replace("@", "@window")
    program = Path(sys.executable).parent / "openanomaly"
    installed = (FOLDER / unit).read_text().replace("/opt/openanomaly/bin/openanomaly", str(program))
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / name).write_text(installed)
    folder = tmp_path / f"{name}.d"
    folder.mkdir()
    for each in drop_ins:
        shutil.copy(FOLDER / each, folder)
    command = [debian.program("systemd-analyze"), *words, str(tmp_path / name)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("drop_ins", [[], [GPU]], ids=str)
@pytest.mark.parametrize("unit", [ALONE, ROLE])
def test_systemd_finds_nothing_wrong(tmp_path: Path, unit: str, drop_ins: list[str]) -> None:
    done = analyze(tmp_path, unit, "verify", "--man=no", drop_ins=drop_ins)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("unit", [ALONE, ROLE])
def test_a_unit_is_closed(tmp_path: Path, unit: str) -> None:
    done = analyze(tmp_path, unit, "security", "--offline=true", f"--threshold={EXPOSURE}")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("unit", [ALONE, ROLE])
def test_with_a_gpu_a_unit_sees_its_devices_and_no_others(tmp_path: Path, unit: str) -> None:
    words = "security", "--offline=true", "--json=short", f"--threshold={EXPOSURE}"
    done = analyze(tmp_path, unit, *words, drop_ins=[GPU])
    assert done.returncode == 0, done.stderr
    found = {each["json_field"]: each for each in json.loads(done.stdout)}
    assert not found["PrivateDevices"]["set"]
    # The clock is there without it, for reading, by `ProtectClock`.
    assert found["DeviceAllow"]["description"].endswith("special devices: char-rtc:r char-nvidia*:rw")
    without = analyze(tmp_path / "without", unit, *words)
    assert {each["json_field"]: each["set"] for each in json.loads(without.stdout)}["PrivateDevices"]


@pytest.mark.parametrize("unit", [ALONE, ROLE])
def test_what_is_fetched_and_compiled_is_kept_where_the_unit_may_write(unit: str) -> None:
    """`ProtectSystem=strict`: nowhere else. Asked of the libraries, as variables could be renamed."""
    [cache] = values(unit, "CacheDirectory")
    code = (
        "import huggingface_hub.constants as hub, numba.core.config as numba\n"
        "print(hub.HF_HUB_CACHE, hub.HF_XET_CACHE, numba.CACHE_DIR, sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=variables(unit), capture_output=True, text=True, check=True
    )
    folders = done.stdout.split()
    assert len(folders) == 3
    assert all(Path(folder).is_relative_to(f"/var/cache/{cache}") for folder in folders), folders


def test_the_documented_environment_needs_nothing_of_the_repository(tmp_path: Path) -> None:
    """A unit sees nothing in /root and /home. The command is that of the document, for another folder."""
    text = (ROOT / "docs/deployment.md").read_text().replace("\\\n", " ")
    [command] = re.findall(r"^\$ (UV_PROJECT_ENVIRONMENT=\S+ uv sync .*)$", text, re.MULTILINE)
    made = tmp_path / "openanomaly"
    assert "/opt/openanomaly " in command
    command = command.replace("/opt/openanomaly", str(made)).replace("/usr/bin/python3", sys.executable)
    env = {key: value for key, value in os.environ.items() if not key.startswith(("OPENANOMALY_", "VIRTUAL"))}
    done = subprocess.run(
        ["sh", "-ec", command], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    [start] = values(ALONE, "ExecStart")
    program = [start.split()[0].replace("/opt/openanomaly", str(made)), "version"]
    assert subprocess.run(program, cwd=tmp_path, env=env, check=False).returncode == 0
    [packages] = made.glob("lib/python3*/site-packages")
    assert (packages / "openanomaly" / "app.py").exists()
    assert (packages / "numba").exists()
    assert not (packages / "pytest").exists()


def test_both_units_are_closed_in_the_same_way() -> None:
    own = {"Description", "ExecStart", "Environment", "EnvironmentFile", "WorkingDirectory"}
    own |= {"StateDirectory", "CacheDirectory"}
    alone, role = ([(k, v) for k, v in lines(unit) if k not in own] for unit in (ALONE, ROLE))
    assert alone == role


@pytest.mark.parametrize("unit", [ALONE, ROLE])
def test_variables_are_settings_and_the_command_exists(unit: str) -> None:
    environment = variables(unit)
    assert environment.pop("OPENANOMALY_CONFIG") == "/etc/openanomaly/openanomaly.yaml"
    settings = load(None, {k: v for k, v in environment.items() if k.startswith("OPENANOMALY_")}, {})
    [start] = values(unit, "ExecStart")
    assert shlex.split(start)[1] in (*ROLES, "%i")
    if unit == ALONE:
        [state] = values(unit, "StateDirectory")
        assert settings.broker.url == f"embedded:///var/lib/{state}/broker"


def test_every_role_that_the_unit_names_is_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    about = (FOLDER / ROLE).read_text().partition("[Unit]")[0]
    named = re.findall(r"@([a-z]+)\b", about)
    assert set(named) == {*ROLES, "pull", "api", "playground"} - {"run"}
    for role in named:
        with pytest.raises(SystemExit) as end:
            cli.main([role, "--help"])
        assert end.value.code == 0, capsys.readouterr().err


def test_what_a_restart_does_not_cure_is_not_restarted() -> None:
    assert values(ALONE, "RestartPreventExitStatus") == [str(CONFIG)]


def test_whoever_ends_gracefully_has_the_time_for_it() -> None:
    from openanomaly import app, supervisor

    [stop] = values(ALONE, "TimeoutStopSec")
    assert int(stop) > max(app._STOP_S, supervisor._STOP_S)
