"""Changes of one definition in the text of a YAML file: everything else stays, comments included."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from openanomaly.adapters.yaml_documents import LIST


@dataclass(slots=True)
class _Span:
    """Where a node stands: its first character, and the one behind its last.

    Attributes:
        column: of its first character.
        flow: whether it is written with brackets.
        items: nodes inside it; keys and values in turn if it is a map.
        key: what it says, if it is a plain value.
    """

    start: int
    end: int
    column: int
    kind: type[yaml.Event]
    flow: bool = True
    items: list["_Span"] = field(default_factory=list)
    key: str = ""


def replaced(text: str, index: int | None, definition: dict[str, Any]) -> str:
    """`text` with another definition in the place of one; None for the one that is the whole text."""
    root = _root(text)
    assert root is not None
    span = root if index is None else _list(root).items[index]
    return text[: span.start] + _written(definition, span.flow, span.column, text) + text[span.end :]


def removed(text: str, index: int) -> str:
    """`text` without one definition of its list."""
    root = _root(text)
    assert root is not None
    whole = _list(root)
    span = whole.items[index]
    if whole.flow:
        if index:
            return text[: whole.items[index - 1].end] + text[span.end :]
        end = whole.items[1].start if len(whole.items) > 1 else span.end
        return text[: span.start] + text[end:]
    first, behind = _dash(text, span, whole.column) - whole.column, _next_line(text, span.end)
    if len(whole.items) > 1:
        return text[:first] + text[behind:]
    # An empty list, for nothing at all would mean the default.
    colon = text.index(":", next(key.end for key in root.items[::2] if key.key == LIST)) + 1
    return text[:colon] + " []" + text[colon:first] + text[behind:]


def added(text: str, definition: dict[str, Any]) -> str:
    """`text` with one more definition at the end of its list, which begins if there is none."""
    newline = "\r\n" if "\r\n" in text else "\n"
    root = _root(text)
    if root is None or (whole := _value(root, LIST)) is None:
        start = text if not text or text.endswith("\n") else text + newline
        column = root.column if root else 0
        return start + " " * column + f"{LIST}:{newline}" + _item(definition, column, text) + newline
    if whole.kind is yaml.SequenceStartEvent and whole.flow:
        if not whole.items:
            at, between = whole.start + 1, ""
        else:
            at, between = whole.items[-1].end, ", "
        return text[:at] + between + _written(definition, True, 0, text) + text[at:]
    if whole.kind is not yaml.SequenceStartEvent:  # nothing, or null
        return text[: whole.start] + newline + _item(definition, root.column, text) + text[whole.end :]
    at = _next_line(text, whole.items[-1].end)
    ended = "" if text[:at].endswith("\n") else newline
    return text[:at] + ended + _item(definition, whole.column, text) + newline + text[at:]


def written(definition: dict[str, Any]) -> str:
    """The text of a file that is one definition."""
    return _written(definition, False, 0, "") + "\n"


def _item(definition: dict[str, Any], column: int, text: str) -> str:
    return " " * column + "- " + _written(definition, False, column + 2, text)


def _written(definition: dict[str, Any], flow: bool, column: int, text: str) -> str:
    """A definition as YAML, its further lines indented, with the line ends of `text`."""
    if flow:
        return _dumped(definition, flow=True)
    lines = _dumped(definition, flow=False).split("\n")
    newline = "\r\n" if "\r\n" in text else "\n"
    return newline.join(line if i == 0 else " " * column + line for i, line in enumerate(lines))


_BREAKS = frozenset("\n\r\x85\u2028\u2029")


class _Dumper(yaml.SafeDumper):
    """Writes every text on one line, so that lines can be indented and nothing else."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = '"' if set(value) & _BREAKS else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def _dumped(definition: dict[str, Any], flow: bool) -> str:
    dumped: str = yaml.dump(
        definition,
        Dumper=_Dumper,
        default_flow_style=flow,
        width=math.inf,
        allow_unicode=True,
        sort_keys=False,
    )
    return dumped.rstrip("\n")


def _dash(text: str, span: _Span, column: int) -> int:
    """Where the dash of an item stands: on its line, or on one before it."""
    line = text.rfind("\n", 0, span.start) + 1
    while line > 0 and text[line : line + column + 1] != " " * column + "-":
        line = text.rfind("\n", 0, line - 1) + 1
    return line + column


def _next_line(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end + 1


def _list(root: _Span) -> _Span:
    found = _value(root, LIST)
    assert found is not None
    return found


def _value(root: _Span, key: str) -> _Span | None:
    pairs = zip(root.items[::2], root.items[1::2], strict=True)
    return next((value for name, value in pairs if name.key == key), None)


def _root(text: str) -> _Span | None:
    events = yaml.parse(text, Loader=yaml.SafeLoader)
    inside = (e for e in events if isinstance(e, yaml.NodeEvent | yaml.CollectionEndEvent))
    first = next(inside, None)
    return None if first is None else _span(first, inside, text)


def _span(event: yaml.Event, events: Iterator[yaml.Event], text: str) -> _Span:
    # The marks of events, and not of nodes: an alias has the node of its anchor. The end of a
    # collection without brackets is where the next thing begins: its own is that of its last item.
    start, end = event.start_mark, event.end_mark
    assert start is not None
    assert end is not None
    span = _Span(start.index, end.index, start.column, type(event))
    if isinstance(event, yaml.CollectionStartEvent):
        span.flow = bool(event.flow_style)
        for inner in events:
            if isinstance(inner, yaml.CollectionEndEvent):
                if span.flow and inner.end_mark is not None:
                    span.end = inner.end_mark.index
                break
            span.items.append(_span(inner, events, text))
            span.end = span.items[-1].end
    elif isinstance(event, yaml.ScalarEvent):
        span.key = event.value
        span.end = span.start + len(text[span.start : span.end].rstrip())
    return span
