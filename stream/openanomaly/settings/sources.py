"""Where settings come from: a YAML file, `OPENANOMALY_*` variables, and flags; later wins.

All that is wrong is said at once, each with its place (file and line, variable or flag), the value,
what is allowed, and the nearest name where one is unknown.
"""

import re
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from openanomaly.core.documents import (
    Path,
    Places,
    dotted,
    field_at,
    group_of,
    nearest,
    parse,
    read,
    tidy,
    wrong,
)
from openanomaly.errors import ConfigError
from openanomaly.settings import Settings

PREFIX = "OPENANOMALY_"
CONFIG_VARIABLE = PREFIX + "CONFIG"
DEFAULT_FILE = "openanomaly.yaml"
SUPERVISOR_VARIABLE = PREFIX + "SUPERVISOR"
_CLIENT_VARIABLES = tuple(PREFIX + name for name in ("URL", "TOKEN", "TOKEN_FILE", "USER", "CA_FILE"))
_OTHERS = (CONFIG_VARIABLE, SUPERVISOR_VARIABLE, PREFIX + "COMPILED", *_CLIENT_VARIABLES)
"""Ours, and no settings: where those are, who started us, whether compiled loops are used, and what
commands that ask a running process are told (commands/admin_client.py)."""

_SERVICE = re.compile(r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)$")
"""What Kubernetes tells pods of a service whose name begins with ours."""


@dataclass
class _Values:
    """Merged settings, and where each came from."""

    tree: dict[str, Any] = field(default_factory=dict)
    places: Places = field(default_factory=lambda: Places("settings"))

    def put(self, path: Path, value: Any, place: str) -> None:
        node = self.tree
        for name in path[:-1]:
            child = node.setdefault(str(name), {})
            if not isinstance(child, dict):
                child = node[str(name)] = {}
            node = child
        node[str(path[-1])] = value
        self.places.put(path, place)

    def put_text(self, path: Path, text: str, place: str) -> list[str]:
        """Take a value from a variable or a flag; what is wrong with it."""
        try:
            self.put(path, _parse(path, text), place)
        except yaml.YAMLError as exc:
            return [f"{place}: {dotted(path)}: it is not YAML: {getattr(exc, 'problem', None) or exc}"]
        return []


def flags_of(texts: Sequence[str]) -> dict[str, str]:
    """What `--set NAME=VALUE` says, by name.

    Raises:
        ConfigError: one has no `=`.
    """
    flags: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set {text}: expected NAME=VALUE")
        flags[name.strip()] = value
    return flags


def load(
    file: str | None, environ: Mapping[str, str], flags: Mapping[str, str], *, explicit: bool = True
) -> Settings:
    """The settings of a process.

    Args:
        file: a YAML file; None for none. It must exist if `explicit`.
        environ: variables; those that begin with `OPENANOMALY_` are ours.
        flags: dotted names (`sink.url`) and their texts.

    Raises:
        ConfigError: something is wrong; one line for each thing.
    """
    values, problems = _Values(), []
    if file is not None and (explicit or FilePath(file).exists()):
        _read_file(file, values)
    names = dict(_variables(Settings))
    for variable, text in sorted(environ.items()):
        if not variable.startswith(PREFIX) or variable in _OTHERS or _SERVICE.search(variable):
            continue
        name = variable.removeprefix(PREFIX)
        if name in names:
            problems += values.put_text(names[name], text, variable)
        else:
            near = nearest(name, names)
            problems.append(f"{variable}: no such setting{near and f'; did you mean {PREFIX}{near}?'}")
    by_name = {dotted(path): path for path in names.values()}
    for name, text in flags.items():
        if name in by_name:
            problems += values.put_text(by_name[name], text, f"flag for {name}")
        else:
            near = nearest(name, by_name)
            problems.append(f"--set {name}: no such setting{near and f'; did you mean {near}?'}")
    tidy(Settings, values.tree)
    try:
        settings = Settings.model_validate(values.tree)
    except ValidationError as exc:
        problems += wrong(exc, Settings, values.places)
    if problems:
        raise ConfigError("\n".join(problems))
    return settings


def _read_file(file: str, values: _Values) -> None:
    try:
        text = FilePath(file).read_text("utf-8")
    except OSError as exc:
        raise ConfigError(f"cannot read settings file {file}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"cannot read settings file {file}: it is not UTF-8") from exc
    tree = read(text, file, values.places)
    if tree is None:
        return
    if not isinstance(tree, dict):
        raise ConfigError(f"{file}, line 1: expected settings by name, found {type(tree).__name__}")
    values.tree = tree


def _variables(model: type[BaseModel], path: Path = ()) -> Iterator[tuple[str, Path]]:
    """Variable name and path of every setting below a group, the lists as wholes."""
    for name, info in model.model_fields.items():
        here = (*path, name)
        inner = group_of(info.annotation)
        if inner is not None:
            yield from _variables(inner, here)
        else:
            yield "_".join(map(str, here)).upper(), here


def _parse(path: Path, text: str) -> Any:
    """Lists and maps are written as YAML in variables and flags; everything else is its text.

    Raises:
        yaml.YAMLError: they are not.
    """
    info = field_at(Settings, path)
    annotation = info.annotation if info else None
    options = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    if text == "" and type(None) in options:
        return None
    if any(get_origin(option) in (tuple, list, dict) for option in options):
        return parse(text)[1]
    return text
