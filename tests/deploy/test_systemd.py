"""The units of deploy/systemd are what systemd takes, closed, and start what they say."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from openanomaly.cli import ROLES
from openanomaly.exits import CONFIG
from openanomaly.settings.sources import load
from parts import debian

FOLDER = Path(__file__).parents[2] / "deploy" / "systemd"
ALONE, ROLE = "openanomaly.service", "openanomaly@.service"
EXPOSURE = 15
"""Tenths, from 0 (closed) to 100, as `systemd-analyze security` counts them: it calls up to 2 OK."""


def lines(unit: str) -> list[tuple[str, str]]:
    """The settings of a unit, in their order."""
    text = (FOLDER / unit).read_text().splitlines()
    parts = (line.partition("=") for line in text if line and not line.startswith(("#", "[")))
    return [(key, value) for key, _, value in parts]


def values(unit: str, key: str) -> list[str]:
    return [value for name, value in lines(unit) if name == key]


def analyze(tmp_path: Path, unit: str, *words: str) -> "subprocess.CompletedProcess[str]":
    """What systemd-analyze says of a unit whose program is this machine's."""
    name = unit.replace("@", "@window")
    program = Path(sys.executable).parent / "openanomaly"
    installed = (FOLDER / unit).read_text().replace("/opt/openanomaly/bin/openanomaly", str(program))
    (tmp_path / name).write_text(installed)
    command = [debian.program("systemd-analyze"), *words, str(tmp_path / name)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("unit", [ALONE, ROLE])
def test_systemd_finds_nothing_wrong(tmp_path: Path, unit: str) -> None:
    done = analyze(tmp_path, unit, "verify", "--man=no")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("unit", [ALONE, ROLE])
def test_a_unit_is_closed(tmp_path: Path, unit: str) -> None:
    done = analyze(tmp_path, unit, "security", "--offline=true", f"--threshold={EXPOSURE}")
    assert done.returncode == 0, done.stdout + done.stderr


def test_both_units_are_closed_in_the_same_way() -> None:
    own = {"Description", "ExecStart", "Environment", "EnvironmentFile", "WorkingDirectory"}
    own |= {"StateDirectory", "CacheDirectory"}
    alone, role = ([(k, v) for k, v in lines(unit) if k not in own] for unit in (ALONE, ROLE))
    assert alone == role


@pytest.mark.parametrize("unit", [ALONE, ROLE])
def test_variables_are_settings_and_the_command_exists(unit: str) -> None:
    variables = dict(word.split("=", 1) for line in values(unit, "Environment") for word in shlex.split(line))
    assert variables.pop("OPENANOMALY_CONFIG") == "/etc/openanomaly/openanomaly.yaml"
    settings = load(None, {k: v for k, v in variables.items() if k.startswith("OPENANOMALY_")}, {})
    [start] = values(unit, "ExecStart")
    assert shlex.split(start)[1] in (*ROLES, "%i")
    if unit == ALONE:
        [state] = values(unit, "StateDirectory")
        assert settings.broker.url == f"embedded:///var/lib/{state}/broker"


def test_what_a_restart_does_not_cure_is_not_restarted() -> None:
    assert values(ALONE, "RestartPreventExitStatus") == [str(CONFIG)]


def test_whoever_ends_gracefully_has_the_time_for_it() -> None:
    from openanomaly import app, supervisor

    [stop] = values(ALONE, "TimeoutStopSec")
    assert int(stop) > max(app._STOP_S, supervisor._STOP_S)
