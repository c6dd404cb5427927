"""Which metrics and labels a PromQL expression names."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"' + r"|'(?:[^'\\]|\\.)*'")
_RANGE = re.compile(r"\[[^\]]*\]")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\s*\{([^}]*)\}")
_WORD = re.compile(r"(?<![\w.])[a-zA-Z_:][\w:]*(?!\s*[\w(:])")
_KEYWORDS = {"and", "or", "unless", "bool", "offset", "by", "on", "group_left", "group_right", "without"}


@dataclass(frozen=True)
class Named:
    """What an expression names.

    Attributes:
        metrics: name -> labels of its matchers.
        grouping: labels by which it groups or joins.
    """

    metrics: Mapping[str, frozenset[str]]
    grouping: frozenset[str]


def named(expression: str) -> Named:
    """The metrics and labels of an expression in which every metric has its name before the brace."""
    made = set(re.findall(r'\bcount_values\s*\(\s*"(\w+)"', expression))
    text = _RANGE.sub("", _STRING.sub('""', expression))
    grouping = {word.strip() for found in _GROUPING.findall(text) for word in found.split(",")} - {""}
    text = _GROUPING.sub(" ", text)
    metrics: dict[str, set[str]] = {}
    for name, matchers in _SELECTOR.findall(text):
        labels = {re.split(r"[=!]", matcher)[0].strip() for matcher in matchers.split(",")} - {""}
        metrics.setdefault(name, set()).update(labels)
    for word in _WORD.findall(_SELECTOR.sub(" ", text)):
        if word not in _KEYWORDS:
            metrics.setdefault(word, set())
    return Named({name: frozenset(labels) for name, labels in metrics.items()}, frozenset(grouping - made))


def unknown(expression: str, exported: Mapping[str, frozenset[str]]) -> list[str]:
    """What an expression names that is not exported: metrics, and labels that none of its metrics has.

    Args:
        exported: name -> labels that any of its series has.
    """
    found = named(expression)
    missing = sorted(name for name in found.metrics if name not in exported)
    known = {name: exported.get(name, frozenset()) for name in found.metrics}
    for name, labels in found.metrics.items():
        if name in exported:
            missing += sorted(f"{name}{{{label}}}" for label in labels - known[name])
    every = frozenset().union(*known.values())
    return missing + sorted(f"by ({label})" for label in found.grouping - every)
