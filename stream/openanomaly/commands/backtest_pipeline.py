"""The pipeline of a backtest: from a settings file or none, with options of the command line."""

import argparse
import os
import re
from collections.abc import Sequence
from typing import Any

import yaml
from pydantic import ValidationError

from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.errors import ConfigError
from openanomaly.settings import Settings
from openanomaly.settings.sources import CONFIG_VARIABLE, DEFAULT_FILE, flags_of, load

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"([0-9]*\.?[0-9]+)(ms|s|m|h|d)?")


def settings_of(options: argparse.Namespace) -> Settings:
    """The settings that the command line names: of pipelines, and of the database that is asked.

    Raises:
        ConfigError: something is wrong with them.
    """
    flags = {"pull.url": options.tsdb} if options.tsdb else {}
    if options.config is None and options.pipeline is None:
        return load(None, os.environ if options.query is not None else {}, flags)
    file = options.config or os.environ.get(CONFIG_VARIABLE)
    return load(file or DEFAULT_FILE, os.environ, flags, explicit=file is not None)


def chosen(options: argparse.Namespace, settings: Settings) -> Pipeline | None:
    """The pipeline of the settings file that is meant; None if no file is.

    Raises:
        ConfigError: it is not there, or there are several.
    """
    if options.config is None and options.pipeline is None:
        return None
    names = [p.name for p in settings.pipelines]
    if options.pipeline is None and len(names) != 1:
        raise ConfigError(f"there are {len(names)} pipelines; say which with --pipeline: {', '.join(names)}")
    for pipeline in settings.pipelines:
        if options.pipeline in (None, pipeline.name):
            return pipeline
    raise ConfigError(f"there is no pipeline {options.pipeline!r}; they are {', '.join(names)}")


def with_options(base: Pipeline, given: dict[str, Any], texts: Sequence[str]) -> Pipeline:
    """The pipeline with `given` options, and those of `--set NAME=VALUE`.

    Raises:
        ConfigError: there is no such option, or not with that value.
    """
    tree = base.model_dump(exclude_defaults=True) | given
    for name, text in flags_of(texts).items():
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as exc:
            raise ConfigError(f"--set {name}={text}: it is not YAML: {exc}") from exc
        *groups, last = name.split(".")
        node = tree
        for group in groups:
            node = node.setdefault(group, {})
            if not isinstance(node, dict):
                raise ConfigError(f"--set {name}: {group} is no group of options")
        node[last] = value
    try:
        return Pipeline.model_validate(tree)
    except ValidationError as exc:
        raise ConfigError("\n".join(map(_described, exc.errors()))) from exc


def names_set(texts: Sequence[str]) -> set[str]:
    """Options that `--set` names."""
    return set(flags_of(texts))


def _described(error: Any) -> str:
    name = ".".join(str(part) for part in error["loc"]) or "the pipeline"
    if error["type"] == "extra_forbidden":
        return f"--set {name}: a pipeline has no such option"
    message = error["msg"].removeprefix("Value error, ")
    return f"{name}: {message}; found {error['input']!r}" if error["loc"] else message


def seconds(text: str) -> float:
    """`90`, `30s`, `5m` or `1h` in seconds: a type for argparse."""
    found = _DURATION.fullmatch(text.strip())
    if found is None or not (value := float(found[1]) * _UNITS[found[2] or "s"]) > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration: expected 90, 30s, 5m, 1h or 1d")
    return value
