"""The Dockerfile: its steps run here in a folder of their own, and what they make runs.

`tests/deploy/image.py` builds the image itself, which takes minutes.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from deploy.dockerfile import ROOT, arguments, stages
from openanomaly import presets

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SHOW = ("Dockerfile", "docs/deployment.md")
TARGETS = ("base", "inference-cpu", "inference-gpu")


def run(words: list[str], folder: Path, env: dict[str, str]) -> str:
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def allowed(path: str) -> bool:
    """Whether .dockerignore lets a path of the repository into the build."""
    return f"!{path}" in (ROOT / ".dockerignore").read_text().splitlines()


@pytest.mark.timeout(300)
def test_its_steps_make_an_environment_that_runs(tmp_path: Path) -> None:
    source, made = tmp_path / "src", tmp_path / "openanomaly"
    source.mkdir()
    env = {key: value for key, value in os.environ.items() if not key.startswith(("OPENANOMALY_", "VIRTUAL"))}
    extras = "pull api mongo playground"
    env |= {"UV_PROJECT_ENVIRONMENT": str(made), "UV_PYTHON_DOWNLOADS": "never", "EXTRAS": extras}
    for instruction, text in stages()["build-base"].steps:
        words = text.split()
        if instruction == "COPY":
            for name in words[:-1]:
                assert allowed(name), f"{name} does not come into the build"
                copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
                copy(ROOT / name, source / (words[-1] if (ROOT / name).is_dir() else name))
        elif instruction == "RUN" and "pip install uv" not in text:
            run(["sh", "-ec", re.sub(r"--mount=\S+", "", text)], source, env)
    shutil.rmtree(source)

    program = str(made / "bin" / "openanomaly")
    assert PROJECT["version"] in run([program, "version"], tmp_path, env)
    assert run([program, "preset", "alerts", "scores"], tmp_path, env) == presets.alerts("scores")
    assert run([program, "preset", "dashboard", "health"], tmp_path, env) == presets.dashboard("health")
    plan = json.loads(run([program, "run", "--dry-run"], tmp_path, env))
    assert any("chronos-bolt-nano" in each for each in plan["starts"])
    python = str(made / "bin" / "python")
    run([python, "-c", "import fastapi, pymongo, requests"], tmp_path, env)
    plan = json.loads(run([program, "playground", "--dry-run"], tmp_path, env))
    assert "playground on :9204" in plan["starts"]
    packages = {path.name.split("-")[0] for path in made.glob("lib/python3*/site-packages/*.dist-info")}
    assert packages.isdisjoint({"torch", "pytest", "numba"})


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_runs_as_nobody_and_says_how_it_is(target: str) -> None:
    stage = stages()[target]
    assert stage.of("USER") == ["10001"]
    assert len(stage.of("HEALTHCHECK")) == len(stage.of("LABEL")) == 1
    assert stage.of("ENTRYPOINT") == ['["openanomaly"]']
    # No compiler and no cache come along: the environment is all that is copied.
    assert [text.split()[-1] for text in stage.of("COPY")] == ["/opt/openanomaly"]


def test_what_is_built_without_a_target_is_the_small_one() -> None:
    assert list(stages())[-1] == "base"


def test_versions_are_named_and_agree() -> None:
    given = arguments()
    assert re.fullmatch(r"3\.\d+\.\d+-slim-bookworm", given["PYTHON"])
    assert given["VERSION"] == PROJECT["version"]
    assert any(re.search(r"uv==\d+\.\d+\.\d+$", text) for text in stages()["build"].of("RUN"))
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    ours = {each["image"] for each in services.values() if each["image"].startswith("openanomaly")}
    assert ours == {f"openanomaly:{PROJECT['version']}{kind}" for kind in ("", "-gpu", "-playground")}


def test_extras_exist() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    built = [services[name]["build"]["args"]["EXTRAS"] for name in ("api", "playground")]
    shown = re.findall(r'EXTRAS="([a-z ]*)"', "".join((ROOT / each).read_text() for each in SHOW))
    assert set(built) <= set(shown)
    named = {extra for extras in (*built, *shown) for extra in extras.split()}
    assert {"api", "playground"} <= named <= set(PROJECT["optional-dependencies"])


@pytest.mark.timeout(300)
def test_the_step_of_torch_without_cuda_resolves_to_what_is_locked(tmp_path: Path) -> None:
    """All of it but the downloads: uv says what it would install.

    PyPI, which has the same version of torch with CUDA, takes the place of PyTorch's index.
    """
    uv = shutil.which("uv")
    assert uv
    shim = tmp_path / "bin" / "uv"
    shim.parent.mkdir()
    shim.write_text(f"""#!/bin/sh
case "$1" in
    sync) set -- "$@" --dry-run ;;
    pip) shift 2; set -- pip install --dry-run "$@" ;;
esac
exec {uv} "$@"
""")
    shim.chmod(0o755)
    made = tmp_path / "openanomaly"
    run([uv, "venv", "-q", "--python", sys.executable, str(made)], tmp_path, dict(os.environ))
    env = {key: value for key, value in os.environ.items() if not key.startswith(("OPENANOMALY_", "VIRTUAL"))}
    env |= {
        "PATH": f"{shim.parent}:{env['PATH']}",
        "UV_PROJECT_ENVIRONMENT": str(made),
        "EXTRAS": arguments()["EXTRAS"],
        "TORCH_INDEX": "https://pypi.org/simple",
    }
    [step] = [text for text in stages()["build-cpu"].of("RUN") if "TORCH_INDEX" in text]
    step = re.sub(r"--mount=\S+", "", step)
    step = step.replace("/tmp/", f"{tmp_path}/").replace("/opt/openanomaly", str(made))
    said = run(["sh", "-ec", f"exec 2>&1; {step}"], ROOT, env)

    found = re.findall(r"^ \+ ([^\s=]+)==(\S+)", said, re.MULTILINE)
    would = dict(found)
    assert len(would) == len(found), "nothing is installed twice"
    packages = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    assert would.items() <= {(package["name"], package["version"]) for package in packages}
    assert {"chronos-forecasting", "transformers", "torch", "numba"} < set(would)
    assert not [name for name in would if re.search("cuda|nvidia|triton", name)]


def test_torch_without_cuda_leaves_out_all_of_cuda(tmp_path: Path) -> None:
    """Every package that only torch's CUDA needs has a name that the step leaves out."""
    words = ["uv", "export", "-q", "--frozen", "--no-dev", "--no-hashes", "--extra", "chronos"]
    locked = run([*words, "--no-emit-project", "--no-header"], ROOT, dict(os.environ))
    [step] = [text for text in stages()["build-cpu"].of("RUN") if "grep -oE" in text]
    pattern = re.search(r"grep -oE '(.+?)' /tmp/locked > /tmp/apart", step)
    assert pattern
    apart = set(re.findall(pattern[1], locked, re.MULTILINE))
    assert {"torch", "triton"} < apart
    blocks = re.findall(r"^(\S+?)==.*\n((?:    #.*\n)*)", locked, re.MULTILINE)
    needed_by = {
        name: set(re.findall(r"#\s+(?:via )?([a-z0-9-]+)$", why, re.MULTILINE)) for name, why in blocks
    }
    of_cuda = {name for name, by in needed_by.items() if by and by <= apart - {"torch"}}
    assert of_cuda <= apart
    left = {name for name in needed_by if re.search("cuda|nvidia|nccl|cublas", name)} - apart
    assert not left
