"""YAML documents that are checked against models: what is wrong, with its place and the nearest name."""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, get_args

import annotated_types
import yaml
from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from openanomaly.errors import ConfigError

Path = tuple[str | int, ...]
"""Where a value stands: keys, and numbers in lists."""

SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_QUANTITY = re.compile(r"\s*([0-9]*\.?[0-9]+)\s*([A-Za-z]+)\s*")


def wrong(
    error: ValidationError, model: type[BaseModel], place: Callable[[Path], str], at: Path = ()
) -> list[str]:
    """What is wrong with the document of a model, a line each.

    Args:
        model: what the document was checked against.
        place: says where a path stands, for people.
        at: path of the document in the whole that people see.
    """
    # A list is also "too short" for pydantic when what is in it is wrong.
    true = [e for e in error.errors() if not (e["type"] == "too_short" and e["input"])]
    return [_describe(each, model, place, at) for each in true]


class Places:
    """Where each value was given; what has no place of its own is where it is in."""

    def __init__(self, whole: str) -> None:
        self._whole = whole
        self._places: dict[Path, str] = {}

    def put(self, path: Path, place: str) -> None:
        self._places[path] = place

    def __contains__(self, path: Path) -> bool:
        return path in self._places

    def __call__(self, path: Path) -> str:
        while path:
            if path in self._places:
                return self._places[path]
            path = path[:-1]
        return self._whole


def read(text: str, file: str, places: Places) -> Any:
    """The values of a YAML document; where each stands is put into `places`.

    Raises:
        ConfigError: it is no YAML, or something is given twice.
    """
    try:
        root, tree = parse(text)
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{file}{line}: {getattr(exc, 'problem', None) or exc}") from exc
    try:
        for path, number in _lines(root, ()) if root is not None else ():
            if path in places:
                raise ConfigError(f"{file}, line {number}: {dotted(path)} is given twice")
            places.put(path, f"{file}, line {number}")
    except RecursionError as exc:
        raise ConfigError(f"{file}: an alias stands inside of what it names") from exc
    return tree


def parse(text: str) -> tuple[yaml.Node | None, Any]:
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


def group_of(annotation: Any) -> type[BaseModel] | None:
    """The group that an annotation is; None if it is none."""
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def field_at(model: type[BaseModel], path: Path) -> FieldInfo | None:
    """The definition of the setting at `path`, through lists of groups."""
    group: type[BaseModel] | None = model
    info: FieldInfo | None = None
    for part in path:
        if isinstance(part, int):
            continue
        if info is not None and group is None:
            break  # inside a map, whose names are the user's
        if group is None or part not in group.model_fields:
            return None
        info = group.model_fields[part]
        group = inner_group(info)
    return info


def flat(annotation: Any) -> Iterator[Any]:
    """An annotation and what is inside its unions, tuples and the like."""
    yield annotation
    for inner in get_args(annotation):
        yield from flat(inner)


def tidy(model: type[BaseModel], tree: dict[str, Any]) -> None:
    """Turn `6h` and `512KiB` into numbers where the setting's name has a unit, and drop empty groups."""
    for name, value in list(tree.items()):
        inner = inner_group(model.model_fields.get(name))
        if inner is not None:
            if value is None:  # all that was below its name is commented out
                del tree[name]
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, dict):
                    tidy(inner, child)
        elif isinstance(name, str) and isinstance(value, str):
            tree[name] = _quantity(name, value)


def _quantity(name: str, text: str) -> float | str:
    found = _QUANTITY.fullmatch(text)
    if found is None:
        return text
    number, unit = float(found[1]), found[2]
    if name.endswith("_s") and unit in SECONDS:
        return number * SECONDS[unit]
    if name.endswith("_ms") and unit in SECONDS:
        return number * SECONDS[unit] * 1000
    if name.endswith("_bytes") and unit in BYTES:
        return int(number * BYTES[unit])
    return text


def inner_group(info: FieldInfo | None) -> type[BaseModel] | None:
    """The group that a setting is, or that its list is of."""
    return next(filter(None, map(group_of, flat(info.annotation))), None) if info else None


def dotted(path: Path) -> str:
    return ".".join(map(str, path))


def _describe(error: Any, model: type[BaseModel], place: Callable[[Path], str], at: Path) -> str:
    """One thing that is wrong: its place, its name, its value, and what is allowed."""
    # Behind the last setting come names of alternatives, which are pydantic's own.
    path: Path = tuple(error["loc"])
    info = field_at(model, path)
    where, name = place((*at, *path)), dotted((*at, *path)) or "settings"
    if error["type"] == "extra_forbidden":
        near = nearest(str(path[-1]), _siblings(model, path))
        return f"{where}: no setting {name}{near and f'; did you mean {near}?'}"
    if error["type"] == "missing":
        return f"{where}: {name} is missing"
    message = error["msg"].removeprefix("Value error, ")
    message = message.replace("a valid tuple", "a list").replace("a valid dictionary", "a map")
    allowed = _range(info)
    if error["type"] == "value_error":
        more = f"; allowed: {allowed}" if allowed else ""
        return f"{where}: {name}: {message}{more}" if (*at, *path) else f"{where}: {message}"
    if error["type"] in ("model_type", "model_attributes_type"):
        message = "expected settings by name"
    elif error["type"] == "too_short":
        message = "it is empty"
    elif allowed:
        is_number = error["type"].startswith(("greater_than", "less_than"))
        message = f"allowed: {allowed}" if is_number else f"{message}; allowed: {allowed}"
    return f"{where}: {name} = {_shown(error['input'], info)}: {message[0].lower()}{message[1:]}"


def _shown(value: Any, info: FieldInfo | None) -> str:
    """A value that is wrong, for people; nothing that may be or hold a secret."""
    if info is None or any(a is SecretStr for a in flat(info.annotation)) or inner_group(info) is not None:
        return f"({'secret' if isinstance(value, str) else type(value).__name__})"
    return repr(value)


def _siblings(model: type[BaseModel], path: Path) -> list[str]:
    group = model if len(path) == 1 else inner_group(field_at(model, path[:-1]))
    return list(group.model_fields) if group else []


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


def nearest(name: str, names: Iterable[str]) -> str:
    """The name that was probably meant; empty if none is near."""
    return next(iter(difflib.get_close_matches(name, list(names), 1)), "")
