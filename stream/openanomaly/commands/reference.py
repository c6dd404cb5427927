"""The configuration reference, a page for people, from the JSON Schema."""

import json
from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]

_HEAD = """\
# Configuration

Every option with its default, generated from the schema: `openanomaly schema --format markdown`.

Settings come from `openanomaly.yaml`, from variables and from flags; later wins. The option `timeout_s` of
the group `sink` is `sink: {timeout_s: 10}` in the file, `OPENANOMALY_SINK_TIMEOUT_S=10` as a variable and
`--set sink.timeout_s=10` as a flag; lists and maps are YAML in the latter two. Options that end in `_s` or
`_ms` take durations with a unit (`500ms`, `90s`, `15m`, `6h`, `7d`, `1w`), those in `_bytes` sizes (`512KiB`,
`64MB`, `20GiB`). Unknown names and impossible combinations are refused, with file, line, value, what is
allowed and the nearest name.

An editor completes and checks the file with the schema: `openanomaly schema > schema.json`, and as the first
line of the file

```yaml
# yaml-language-server: $schema=schema.json
```

Pipelines are defined in the same file, or in a [store](pipeline-stores.md) of their own, where
`openanomaly schema --of pipeline` is the schema of each.
"""


def page(schema: Schema) -> str:
    """The reference of a document with this schema, as Markdown."""
    lines = [_HEAD]
    for name, title, group in _groups(schema, schema, ""):
        lines += [f"## {title}", ""]
        if about := group.get("description"):
            lines += [about, ""]
        lines += ["| option | default | allowed | what it is |", "| --- | --- | --- | --- |"]
        lines += [_row(schema, name, option, group["properties"][option]) for option in group["properties"]]
        lines += [""]
    return "\n".join(lines).rstrip()


def _groups(root: Schema, group: Schema, path: str) -> Iterator[tuple[str, str, Schema]]:
    """Path, title and schema of every group that has options of its own, outer ones first."""
    options = {name: _inner(root, option) for name, option in group["properties"].items()}
    if path or not all(options.values()):
        yield path, f"`{path}`" if path else str(root["title"]), group
    for name, inner in options.items():
        if inner is not None:
            is_list = _is_list(group["properties"][name])
            yield from _groups(root, inner, f"{path}{'.' * bool(path)}{name}{'[]' * is_list}")


def _row(root: Schema, path: str, name: str, option: Schema) -> str:
    inner = _inner(root, option)
    default = _default(option["default"]) if "default" in option else ""
    if inner is not None:
        end = "[]" * _is_list(option)
        allowed, default = f"see `{path}{'.' * bool(path)}{name}{end}`", ""
    else:
        allowed = _allowed(option)
    cells = (f"`{name}`", default, allowed, option.get("description", ""))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _default(value: Any) -> str:
    if value is None:
        return ""
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _allowed(option: Schema) -> str:
    """What may be written, in words."""
    if "anyOf" in option:
        if said := option["anyOf"][0].get("description"):
            return str(said)
        kinds = [_allowed(kind) for kind in option["anyOf"] if kind.get("type") != "null"]
        # Of a quantity its number says all; its units are explained at the top.
        if len(kinds) == 2 and option["anyOf"][0].get("type") in ("number", "integer"):
            return kinds[0]
        return " or ".join(dict.fromkeys(filter(None, kinds)))
    if "enum" in option:
        return ", ".join(f"`{value}`" for value in option["enum"])
    if "const" in option:
        return f"`{option['const']}`"
    if option.get("type") == "array":
        if items := option.get("prefixItems"):
            return f"[{', '.join(map(_allowed, items))}]"
        return f"list of {_allowed(option.get('items', {})) or 'values'}"
    if option.get("type") == "object":
        return "map"
    if option.get("writeOnly"):
        return "text, kept secret"
    return _scalar(option)


def _scalar(option: Schema) -> str:
    kind = {"integer": "whole number", "number": "number", "boolean": "true or false", "string": "text"}
    words = kind.get(option.get("type", ""), "")
    if pattern := option.get("pattern"):
        return f"`{pattern}`"
    low, high = option.get("minimum"), option.get("maximum")
    limits = [
        f"{word} {_number(limit)}"
        for word, limit in (
            ("at least", low),
            ("more than", option.get("exclusiveMinimum")),
            ("at most", high),
            ("less than", option.get("exclusiveMaximum")),
        )
        if limit is not None
    ]
    return ", ".join([words, *limits])


def _number(limit: float) -> str:
    return f"{int(limit)}" if limit == int(limit) else f"{limit:g}"


def _inner(root: Schema, option: Schema) -> Schema | None:
    """The group that an option is, or that its list is of."""
    for part in (option, *option.get("anyOf", ())):
        reference = part.get("$ref") or part.get("items", {}).get("$ref")
        if reference:
            found: Schema = root["$defs"][reference.rpartition("/")[2]]
            return found
    return None


def _is_list(option: Schema) -> bool:
    return any("items" in part for part in (option, *option.get("anyOf", ())))
