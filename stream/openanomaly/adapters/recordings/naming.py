"""Series as text, as PromQL writes them: `up{job="node"}`."""

import re

from openanomaly.core.series import Labels, canonical
from openanomaly.errors import MalformedRequestError

_LABEL = re.compile(r'\s*([^={},"\s]+)\s*=\s*"((?:[^"\\]|\\.)*)"\s*(,|$)')
_SERIES = re.compile(r"([^{}]*)\{(.*)\}\s*", re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


def show(labels: Labels) -> str:
    """The labels as text, `{}` where there are none."""
    name = next((value for label, value in labels if label == "__name__"), "")
    others = [(label, value) for label, value in labels if label not in ("__name__", "")]
    if not others:
        return name or "{}"
    inner = ",".join(f'{label}="{_escaped(value)}"' for label, value in others)
    return f"{name}{{{inner}}}"


def read(text: str) -> Labels:
    """What `show` wrote; any other text is a name."""
    found = _SERIES.fullmatch(text)
    if found is None:
        return (("__name__", text),)
    labels, rest = [("__name__", found[1].strip())], found[2]
    while rest.strip():
        label = _LABEL.match(rest)
        if label is None:
            return (("__name__", text),)
        labels.append((label[1], _ESCAPE.sub(_unescaped, label[2])))
        rest = rest[label.end() :]
    try:
        return canonical(labels)
    except MalformedRequestError:
        return NAMELESS if not any(value for _, value in labels) else (("__name__", text),)


NAMELESS: Labels = (("", ""),)
"""Stands for no labels at all, as of `sum(x)`: see core/services/pulled.py."""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _unescaped(found: "re.Match[str]") -> str:
    return "\n" if found[1] == "n" else found[1]
