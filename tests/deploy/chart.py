"""The rendered chart, for tests."""

import functools
import subprocess
from pathlib import Path
from typing import Any

import yaml

from parts import tools

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "openanomaly"
SHAPES = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))
CONFIG = "/etc/openanomaly/config/openanomaly.yaml"

Object = dict[str, Any]


def helm(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [tools.helm(), *map(str, words)]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


def values(shape: str) -> Path:
    return CHART / "ci" / f"{shape}-values.yaml"


@functools.cache
def render(shape: str, *flags: str) -> tuple[Object, ...]:
    """The objects of a shape, as release `release` in the namespace `default`."""
    done = helm("template", "release", CHART, "-f", values(shape), *flags)
    assert done.returncode == 0, done.stderr
    return tuple(each for each in yaml.safe_load_all(done.stdout) if each)


def of_kind(objects: tuple[Object, ...], *kinds: str) -> dict[str, Object]:
    """Objects of some kinds, by what their names have behind the release's."""
    chosen = [each for each in objects if each["kind"] in kinds]
    found = {each["metadata"]["name"].removeprefix("release-"): each for each in chosen}
    assert len(found) == len(chosen), "two of one name"
    return found


def workloads(objects: tuple[Object, ...]) -> dict[str, Object]:
    return of_kind(objects, "Deployment", "StatefulSet")


def pods(objects: tuple[Object, ...]) -> dict[str, Object]:
    """Specs of all pods by role, that of `helm test` among them."""
    found = {role: each["spec"]["template"]["spec"] for role, each in workloads(objects).items()}
    return found | {name: each["spec"] for name, each in of_kind(objects, "Pod").items()}


def container(pod: Object) -> Object:
    [only] = pod["containers"]
    assert isinstance(only, dict)
    return only


def settings(objects: tuple[Object, ...]) -> Object:
    """What the file says that processes read."""
    text = of_kind(objects, "ConfigMap")["config"]["data"]["openanomaly.yaml"]
    found = yaml.safe_load(text)
    assert isinstance(found, dict)
    return found
