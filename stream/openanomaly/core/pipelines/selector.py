"""PromQL series selectors, and which series are our own output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import re2

from openanomaly.core.series import Labels
from openanomaly.errors import ConfigError

_NAME = re2.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_SPACE = " \t\r\n"
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_OPTIONS = re2.Options()
_OPTIONS.log_errors = False  # they are raised
ANOMALY_RATE = "anomaly_rate"
"""The share of a group's series that are in an episode: a series that we make, and watch ourselves."""
_OUTPUT = frozenset({"anomaly_score", "yhat", "yhat_lower", "yhat_upper", "y"})


@dataclass(frozen=True, slots=True)
class Matcher:
    """One comparison. A label that a series has not counts as empty."""

    name: str
    operator: str
    value: str
    accepts: Callable[[str], bool]


def _matcher(name: str, operator: str, value: str) -> Matcher:
    if operator in ("=", "!="):
        wanted = operator == "="
        return Matcher(name, operator, value, lambda x: (x == value) is wanted)
    try:
        # Prometheus anchors both ends, and its dot matches newlines.
        compiled = re2.compile(f"(?s:{value})", _OPTIONS)
    except re2.error as exc:
        reason = exc.args[0].decode() if exc.args and isinstance(exc.args[0], bytes) else str(exc)
        raise ConfigError(
            f"cannot parse the regular expression {value!r} of label {name!r}: {reason}"
        ) from exc
    wanted = operator == "=~"
    return Matcher(name, operator, value, lambda x: (compiled.fullmatch(x) is not None) is wanted)


@dataclass(frozen=True)
class Selector:
    """Which series a pipeline watches: `name{label="value", other=~"regex"}`."""

    text: str
    matchers: tuple[Matcher, ...]

    @classmethod
    def parse(cls, text: str) -> Selector:
        """The selector written as `text`.

        Raises:
            ConfigError: naming the position and what was expected there.
        """
        return cls(text, tuple(_Parser(text).selector()))

    def matches(self, labels: Labels) -> bool:
        """Whether a series is selected; never one of our own output."""
        have = dict(labels)
        return not our_output(labels) and all(m.accepts(have.get(m.name, "")) for m in self.matchers)


@dataclass(frozen=True)
class OwnSelector(Selector):
    """Chooses among series of our own, which no other selector does."""

    def matches(self, labels: Labels) -> bool:
        have = dict(labels)
        return all(m.accepts(have.get(m.name, "")) for m in self.matchers)


def our_output(labels: Labels) -> bool:
    """Whether a series is one that we write: by its name, and a label that all of that name have."""
    have = dict(labels)
    name = have.get("__name__", "")
    if name == ANOMALY_RATE and "pipeline" in have:
        return True
    return "for" in have and (name in _OUTPUT or name.startswith("anomaly_"))


class _Parser:
    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def fail(self, expected: str) -> ConfigError:
        found = repr(self.text[self.at]) if self.at < len(self.text) else "the end"
        return ConfigError(
            f"cannot parse selector {self.text!r}: expected {expected} at position {self.at + 1}, "
            f"found {found}"
        )

    def skip(self) -> None:
        while self.at < len(self.text) and self.text[self.at] in _SPACE:
            self.at += 1

    def take(self, token: str) -> bool:
        self.skip()
        if self.text.startswith(token, self.at):
            self.at += len(token)
            return True
        return False

    def selector(self) -> list[Matcher]:
        out = []
        self.skip()
        if (found := _NAME.match(self.text[self.at :])) is not None:
            self.at += found.end()
            out.append(_matcher("__name__", "=", found.group()))
        if self.take("{"):
            while not self.take("}"):
                out.append(self.matcher())
                if not self.take(","):
                    if not self.take("}"):
                        raise self.fail("',' or '}'")
                    break
        self.skip()
        if self.at < len(self.text):
            raise self.fail("the end")
        if not out:
            if not self.text.strip():
                raise self.fail("a metric name or '{'")
        elif out[0].name == "__name__" and sum(m.name == "__name__" and m.operator == "=" for m in out) > 1:
            raise ConfigError(f"cannot parse selector {self.text!r}: the metric name is given twice")
        return out

    def matcher(self) -> Matcher:
        self.skip()
        if self.at < len(self.text) and self.text[self.at] in "\"'`":
            name = self.string()
            self.skip()
            if self.at < len(self.text) and self.text[self.at] in ",}":
                return _matcher("__name__", "=", name)
        elif (found := _NAME.match(self.text[self.at :])) is not None:
            name = found.group()
            self.at += found.end()
        else:
            raise self.fail("a label name")
        for operator in ("=~", "!~", "!=", "="):
            if self.take(operator):
                self.skip()
                return _matcher(name, operator, self.string())
        raise self.fail("'=', '!=', '=~' or '!~'")

    def string(self) -> str:
        quote = self.text[self.at : self.at + 1]
        if quote not in ('"', "'", "`") or not quote:
            raise self.fail("a quoted string")
        self.at += 1
        out: list[str] = []
        while self.at < len(self.text):
            char = self.text[self.at]
            self.at += 1
            if char == quote:
                return "".join(out)
            out.append(self.escape() if char == "\\" and quote != "`" else char)
        raise self.fail(f"a closing {quote}")

    def escape(self) -> str:
        char = self.text[self.at : self.at + 1]
        self.at += 1
        if char in ("\\", '"', "'") and char:
            return char
        if char in _ESCAPES and char:
            return _ESCAPES[char]
        for mark, digits, base in (("x", 2, 16), ("u", 4, 16), ("U", 8, 16)):
            if char == mark:
                return self.code(digits, base)
        if char.isdigit():
            self.at -= 1
            return self.code(3, 8)
        self.at -= 1
        raise self.fail("an escape sequence")

    def code(self, digits: int, base: int) -> str:
        found = self.text[self.at : self.at + digits]
        if len(found) < digits or not set(found) <= set(
            "0123456789abcdefABCDEF"[: 22 if base == 16 else base]
        ):
            raise self.fail(f"{digits} digits")
        number = int(found, base)
        if number > 0x10FFFF or 0xD800 <= number <= 0xDFFF:
            raise self.fail("the number of a character")
        self.at += digits
        return chr(number)
