"""Programs of Debian's packages: Prometheus 2, VictoriaMetrics, node_exporter, Chromium, checkers."""

import os
import shutil
import subprocess

from parts.part import is_ci, missing

PACKAGES = {
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "victoria-metrics": "victoria-metrics",
    "vmagent": "victoria-metrics",
    "vmalert": "victoria-metrics",
    "prometheus-node-exporter": "prometheus-node-exporter",
    "chromium": "chromium",
    "chromedriver": "chromium-driver",
    "systemd-analyze": "systemd",
    "nix": "nix-bin",
    "nix-instantiate": "nix-bin",
}
ELSEWHERE = {"prometheus-node-exporter": "node_exporter"}
"""What other distributions, nixpkgs among them, call a program."""
INSTALL = "apt-get install --no-install-recommends"


def program(name: str) -> str:
    """The path of a program. In CI, as root, its package is installed when it is missing."""
    if not find(name) and is_ci() and os.geteuid() == 0:
        install(PACKAGES[name])
    path = find(name)
    if path is None:
        missing(name, f"{INSTALL} {PACKAGES[name]}")
    assert path is not None
    return path


def find(name: str) -> str | None:
    """The path of an installed program, by its name in Debian."""
    return shutil.which(name) or shutil.which(ELSEWHERE.get(name, name))


def install(*packages: str) -> None:
    """Installs packages of Debian; a failure shows in the program that is still missing."""
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-q"], [*INSTALL.split(), "-y", "-q", *packages]):
        subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False)
