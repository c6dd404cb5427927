"""Pipelines that come with the product, chosen by the name of what they watch.

They are definitions like others, in a file NAME.yaml here; the settings `presets` name some. Names of their
pipelines, selectors and options are the user's interface: scores bear the names.
"""

from collections.abc import Iterable
from functools import cache
from importlib.resources import files

from openanomaly.adapters.yaml_documents import document
from openanomaly.core.documents import nearest
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.errors import ConfigError

_SUFFIX = ".yaml"


@cache
def names() -> tuple[str, ...]:
    """Every preset, ascending."""
    found = (file.name for file in files(__name__).iterdir())
    return tuple(sorted(name.removesuffix(_SUFFIX) for name in found if name.endswith(_SUFFIX)))


def text(name: str) -> str:
    """The file of a preset, with the reasons for each pipeline.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in names():
        near = nearest(name, names())
        meant = f"did you mean {near!r}? " if near else ""
        raise ConfigError(f"there is no preset {name!r}; {meant}they are {', '.join(names())}")
    return (files(__name__) / f"{name}{_SUFFIX}").read_text("utf-8")


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
