"""flake.nix evaluates: a shell with every tool, a package, and `nix run`.

nixpkgs cannot be fetched in a test, so a stand-in takes its place. It has the names that the flake uses,
as empty derivations; that nixpkgs has them too is not checked here, and nothing is built.
"""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from parts import debian, tools

ROOT = Path(__file__).parents[2]
SYSTEM = "x86_64-linux"
# Programs that tests run -> the package of nixpkgs in the shell.
TOOLS = {
    "prometheus": "prometheus",
    "promtool": "prometheus-cli",
    "victoria-metrics": "victoriametrics",
    "vmagent": "victoriametrics",
    "vmalert": "victoriametrics",
    "prometheus-node-exporter": "prometheus-node-exporter",
    "chromium": "chromium",
    "chromedriver": "chromedriver",
    "systemd-analyze": "systemd",
    "nix": "nix",
    "nix-instantiate": "nix",
}
LINUX_ONLY = {"chromium", "chromedriver", "systemd"}
OTHERS = {"python312", "uv", "curl", "jdk17_headless", "maven", "go", "kubernetes-helm"}

STAND_IN = """
{
  outputs = { self }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" "x86_64-darwin" "aarch64-darwin" ];
      of = system:
        let
          make = name: more:
            derivation { inherit name system; builder = "/bin/sh"; } // { inherit name; } // more;
          names = [ %s ];
        in
        builtins.listToAttrs (map (name: { inherit name; value = make name { }; }) names) // {
          # Of several outputs, as in nixpkgs: promtool is not in the first.
          prometheus = make "prometheus" { cli = make "prometheus-cli" { }; };
          lib = {
            makeLibraryPath = builtins.concatStringsSep ":";
            optionals = condition: list: if condition then list else [ ];
          };
          stdenv = { cc.cc.lib = "/lib"; isLinux = builtins.match ".*-linux" system != null; };
          mkShell = args: make "shell" { inherit (args) packages; };
          writeShellApplication = args: make args.name { inherit (args) text; };
        };
    in
    { legacyPackages = builtins.listToAttrs (map (name: { inherit name; value = of name; }) systems); };
}
"""


@pytest.fixture
def flake(tmp_path: Path) -> Path:
    """The flake in a folder of its own, and the stand-in beside it."""
    folder, stand_in = tmp_path / "flake", tmp_path / "nixpkgs"
    folder.mkdir()
    stand_in.mkdir()
    for name in ("flake.nix", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    names = " ".join(f'"{name}"' for name in sorted({*TOOLS.values(), *OTHERS} - {"prometheus-cli"}))
    (stand_in / "flake.nix").write_text(STAND_IN % names)
    return folder


def nix(flake: Path, *words: str) -> str:
    """The output of a command of nix about the flake."""
    where = ["--override-input", "nixpkgs", f"path:{flake.parent / 'nixpkgs'}", "--no-write-lock-file"]
    features = ["--extra-experimental-features", "nix-command flakes", "--offline"]
    command = [debian.program("nix"), *features, "--store", str(flake.parent / "store"), *words, *where]
    env = {"HOME": str(flake.parent), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def read(flake: Path, attribute: str, *words: str) -> Any:
    return json.loads(nix(flake, "eval", "--json", f"path:{flake}#{attribute}", *words))


def test_every_output_evaluates(flake: Path) -> None:
    nix(flake, "flake", "check", "--no-build", f"path:{flake}")


def test_the_shell_has_every_tool_that_tests_run(flake: Path) -> None:
    names = "packages: map (each: each.name) packages"
    found = read(flake, f"devShells.{SYSTEM}.default.packages", "--apply", names)
    assert set(debian.PACKAGES) == set(TOOLS)
    assert set(found) == {*TOOLS.values(), *OTHERS}
    on_a_mac = read(flake, "devShells.aarch64-darwin.default.packages", "--apply", names)
    assert set(found) - set(on_a_mac) == LINUX_ONLY


def test_nix_run_starts_the_package(flake: Path) -> None:
    app = read(flake, f"apps.{SYSTEM}.default")
    package = read(flake, f"packages.{SYSTEM}.default.outPath")
    assert app == {"type": "app", "program": f"{package}/bin/openanomaly"}


def test_the_program_of_the_package_has_no_findings(flake: Path, tmp_path: Path) -> None:
    script = tmp_path / "openanomaly"
    script.write_text(
        "#!/usr/bin/env bash\nset -euo pipefail\n" + read(flake, f"packages.{SYSTEM}.default.text")
    )
    done = tools.run(tools.SHELLCHECK, "shellcheck", script)
    assert done.returncode == 0, done.stdout + done.stderr
