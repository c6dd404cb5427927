"""Where settings come from: a YAML file, `OPENANOMALY_*` variables, and flags; later wins.

All that is wrong is said at once, each with its place (file and line, variable or flag), the value,
what is allowed, and the nearest name where one is unknown.
"""

import difflib
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, Union, get_args, get_origin

import annotated_types
import yaml
from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo

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
Path = tuple[str | int, ...]

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_SERVICE = re.compile(r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)$")
"""What Kubernetes tells pods of a service whose name begins with ours."""
_QUANTITY = re.compile(r"\s*([0-9]*\.?[0-9]+)\s*([A-Za-z]+)\s*")


@dataclass
class _Values:
    """Merged settings, and where each came from."""

    tree: dict[str, Any] = field(default_factory=dict)
    places: dict[Path, str] = field(default_factory=dict)

    def put(self, path: Path, value: Any, place: str) -> None:
        node = self.tree
        for name in path[:-1]:
            child = node.setdefault(str(name), {})
            if not isinstance(child, dict):
                child = node[str(name)] = {}
            node = child
        node[str(path[-1])] = value
        self.places[path] = place

    def put_text(self, path: Path, text: str, place: str) -> list[str]:
        """Take a value from a variable or a flag; what is wrong with it."""
        try:
            self.put(path, _parse(path, text), place)
        except yaml.YAMLError as exc:
            return [f"{place}: {_dotted(path)}: it is not YAML: {getattr(exc, 'problem', None) or exc}"]
        return []

    def place(self, path: Path) -> str:
        """Where the setting, or the nearest one around it, was given."""
        while path:
            if path in self.places:
                return self.places[path]
            path = path[:-1]
        return "settings"


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
            near = _nearest(name, names)
            problems.append(f"{variable}: no such setting{near and f'; did you mean {PREFIX}{near}?'}")
    dotted = {".".join(map(str, path)): path for path in names.values()}
    for name, text in flags.items():
        if name in dotted:
            problems += values.put_text(dotted[name], text, f"flag for {name}")
        else:
            near = _nearest(name, dotted)
            problems.append(f"--set {name}: no such setting{near and f'; did you mean {near}?'}")
    _tidy(Settings, values.tree)
    try:
        settings = Settings.model_validate(values.tree)
    except ValidationError as exc:
        # A list is also "too short" for pydantic when what is in it is wrong.
        wrong = [e for e in exc.errors() if not (e["type"] == "too_short" and e["input"])]
        problems += [_describe(error, values) for error in wrong]
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
    try:
        root, tree = _yaml(text)
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{file}{line}: {getattr(exc, 'problem', None) or exc}") from exc
    if tree is None:
        return
    if not isinstance(tree, dict) or root is None:
        raise ConfigError(f"{file}, line 1: expected settings by name, found {type(tree).__name__}")
    values.tree = tree
    try:
        for path, number in _lines(root, ()):
            if path in values.places:
                raise ConfigError(f"{file}, line {number}: {_dotted(path)} is given twice")
            values.places[path] = f"{file}, line {number}"
    except RecursionError as exc:
        raise ConfigError(f"{file}: an alias stands inside of what it names") from exc


def _yaml(text: str) -> tuple[yaml.Node | None, Any]:
    """The nodes and the values of a YAML document.

    Raises:
        yaml.YAMLError: it is not one.
    """
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader), yaml.safe_load(text)
    except (ValueError, RecursionError) as exc:  # a date that does not exist; nested without end
        raise yaml.YAMLError(str(exc)) from exc


def _lines(node: yaml.Node, path: Path) -> Iterator[tuple[Path, int]]:
    """Path and line of everything below a node."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*path, str(key.value))
            yield here, key.start_mark.line + 1
            yield from _lines(value, here)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            here = (*path, i)
            yield here, value.start_mark.line + 1
            yield from _lines(value, here)


def _variables(model: type[BaseModel], path: Path = ()) -> Iterator[tuple[str, Path]]:
    """Variable name and path of every setting below a group, the lists as wholes."""
    for name, info in model.model_fields.items():
        here = (*path, name)
        inner = _group(info.annotation)
        if inner is not None:
            yield from _variables(inner, here)
        else:
            yield "_".join(map(str, here)).upper(), here


def _group(annotation: Any) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _field(path: Path) -> FieldInfo | None:
    """The definition of the setting at `path`, through lists of groups."""
    model: type[BaseModel] | None = Settings
    info: FieldInfo | None = None
    for part in path:
        if isinstance(part, int):
            continue
        if info is not None and model is None:
            break  # inside a map, whose names are the user's
        if model is None or part not in model.model_fields:
            return None
        info = model.model_fields[part]
        model = _inner(info)
    return info


def _flat(annotation: Any) -> Iterator[Any]:
    """An annotation and what is inside its unions, tuples and the like."""
    yield annotation
    for inner in get_args(annotation):
        yield from _flat(inner)


def _parse(path: Path, text: str) -> Any:
    """Lists and maps are written as YAML in variables and flags; everything else is its text.

    Raises:
        yaml.YAMLError: they are not.
    """
    info = _field(path)
    annotation = info.annotation if info else None
    options = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    if text == "" and type(None) in options:
        return None
    if any(get_origin(option) in (tuple, list, dict) for option in options):
        return _yaml(text)[1]
    return text


def _tidy(model: type[BaseModel], tree: dict[str, Any]) -> None:
    """Turn `6h` and `512KiB` into numbers where the setting's name has a unit, and drop empty groups."""
    for name, value in list(tree.items()):
        inner = _inner(model.model_fields.get(name))
        if inner is not None:
            if value is None:  # all that was below its name is commented out
                del tree[name]
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, dict):
                    _tidy(inner, child)
        elif isinstance(name, str) and isinstance(value, str):
            tree[name] = _quantity(name, value)


def _quantity(name: str, text: str) -> float | str:
    found = _QUANTITY.fullmatch(text)
    if found is None:
        return text
    number, unit = float(found[1]), found[2]
    if name.endswith("_s") and unit in _SECONDS:
        return number * _SECONDS[unit]
    if name.endswith("_ms") and unit in _SECONDS:
        return number * _SECONDS[unit] * 1000
    if name.endswith("_bytes") and unit in _BYTES:
        return int(number * _BYTES[unit])
    return text


def _inner(info: FieldInfo | None) -> type[BaseModel] | None:
    """The group that a setting is, or that its list is of."""
    return next(filter(None, map(_group, _flat(info.annotation))), None) if info else None


def _dotted(path: Path) -> str:
    return ".".join(map(str, path))


def _describe(error: Any, values: _Values) -> str:
    """One thing that is wrong: its place, its name, its value, and what is allowed."""
    # Behind the last setting come names of alternatives, which are pydantic's own.
    path: Path = tuple(error["loc"])
    info = _field(path)
    name = _dotted(path) or "settings"
    place = values.place(path)
    if error["type"] == "extra_forbidden":
        near = _nearest(str(path[-1]), _siblings(path))
        return f"{place}: no setting {name}{near and f'; did you mean {near}?'}"
    if error["type"] == "missing":
        return f"{place}: {name} is missing"
    message = error["msg"].removeprefix("Value error, ")
    message = message.replace("a valid tuple", "a list").replace("a valid dictionary", "a map")
    allowed = _range(info)
    if error["type"] == "value_error":
        more = f"; allowed: {allowed}" if allowed else ""
        return f"{place}: {name}: {message}{more}" if path else f"{place}: {message}"
    if error["type"] in ("model_type", "model_attributes_type"):
        message = "expected settings by name"
    elif error["type"] == "too_short":
        message = "it is empty"
    elif allowed:
        is_number = error["type"].startswith(("greater_than", "less_than"))
        message = f"allowed: {allowed}" if is_number else f"{message}; allowed: {allowed}"
    return f"{place}: {name} = {_shown(error['input'], info)}: {message[0].lower()}{message[1:]}"


def _shown(value: Any, info: FieldInfo | None) -> str:
    """A value that is wrong, for people; nothing that may be or hold a secret."""
    if info is None or any(a is SecretStr for a in _flat(info.annotation)) or _inner(info) is not None:
        return f"({'secret' if isinstance(value, str) else type(value).__name__})"
    return repr(value)


def _siblings(path: Path) -> list[str]:
    model = Settings if len(path) == 1 else _inner(_field(path[:-1]))
    return list(model.model_fields) if model else []


def _range(info: FieldInfo | None) -> str:
    """What a number may be, in words; empty if it has no limits."""
    low = high = ""
    for limit in info.metadata if info else ():
        if isinstance(limit, annotated_types.Ge):
            low = f"at least {limit.ge}"
        elif isinstance(limit, annotated_types.Gt):
            low = f"more than {limit.gt}"
        elif isinstance(limit, annotated_types.Le):
            high = f"at most {limit.le}"
        elif isinstance(limit, annotated_types.Lt):
            high = f"less than {limit.lt}"
    return " and ".join(filter(None, (low, high)))


def _nearest(name: str, names: Any) -> str:
    return next(iter(difflib.get_close_matches(name, list(names), 1)), "")
