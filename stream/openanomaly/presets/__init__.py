"""What comes with the product, chosen by the name of what it watches: pipelines, a dashboard, alert rules.

Pipelines are definitions like others, in a file NAME.yaml here; the settings `presets` name some. Names of
their pipelines, selectors and options are the user's interface: scores bear the names. Dashboards and rules
are printed for Grafana and Prometheus to read; two of each are for everybody, and their names have no
pipelines.
"""

from collections.abc import Iterable
from functools import cache
from importlib.resources import files

from openanomaly.adapters.yaml_documents import document
from openanomaly.core.documents import nearest
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.errors import ConfigError

_ALERTS = "alerts"
_DASHBOARDS = "dashboards"


def names() -> tuple[str, ...]:
    """Every preset, ascending."""
    return _names(".", ".yaml")


def without_pipelines() -> tuple[str, ...]:
    """Names that have a dashboard and rules only, ascending."""
    return tuple(name for name in _names(_ALERTS, ".yaml") if name not in names())


def text(name: str) -> str:
    """The file of a preset, with the reasons for each pipeline.

    Raises:
        ConfigError: there is none of that name.
    """
    if name in without_pipelines():
        raise ConfigError(
            f"{name!r} has a dashboard and alerts, and no pipelines; presets are {', '.join(names())}"
        )
    return _text(".", ".yaml", name, "preset")


def alerts(name: str) -> str:
    """The rules for Prometheus and vmalert of that name.

    Raises:
        ConfigError: there are none.
    """
    return _text(_ALERTS, ".yaml", name, "file of alerts")


def dashboard(name: str) -> str:
    """The JSON of Grafana's dashboard of that name.

    Raises:
        ConfigError: there is none.
    """
    return _text(_DASHBOARDS, ".json", name, "dashboard")


@cache
def _names(folder: str, suffix: str) -> tuple[str, ...]:
    found = (file.name for file in (files(__name__) / folder).iterdir())
    return tuple(sorted(name.removesuffix(suffix) for name in found if name.endswith(suffix)))


def _text(folder: str, suffix: str, name: str, kind: str) -> str:
    known = _names(folder, suffix)
    if name not in known:
        near = nearest(name, known)
        meant = f"did you mean {near!r}? " if near else ""
        raise ConfigError(f"there is no {kind} {name!r}; {meant}they are {', '.join(known)}")
    return (files(__name__) / folder / f"{name}{suffix}").read_text("utf-8")


@cache
def pipelines(name: str) -> tuple[Pipeline, ...]:
    """The pipelines of a preset, in the order of its file.

    Raises:
        ConfigError: there is none of that name.
    """
    found = document(text(name), f"preset {name}")
    assert not found.problems, found.problems
    return tuple(defined.pipeline for defined in found.defined)


def beside(own: Iterable[Pipeline], chosen: Iterable[str]) -> tuple[Pipeline, ...]:
    """The user's pipelines and, behind them, those of the chosen presets.

    Raises:
        ConfigError: there is no such preset, or a name is used twice.
    """
    out = tuple(own)
    taken = {pipeline.name for pipeline in out}
    for name in chosen:
        for pipeline in pipelines(name):
            if pipeline.name in taken:
                raise ConfigError(
                    f"pipeline {pipeline.name!r} is defined here and in the preset {name!r}: give yours "
                    f"another name, or leave the preset out and begin with `openanomaly preset show {name}`"
                )
        out += pipelines(name)
    return out
