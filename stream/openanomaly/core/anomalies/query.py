"""What is asked of the board: parameters of a request, checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, get_args

from openanomaly.core.pipelines.selector import Selector
from openanomaly.errors import ConfigError, MalformedRequestError

State = Literal["open", "ended", "all"]
_PARAMETERS = ("pipeline", "group", "match", "state", "since", "limit", "steps")
_MOST_LISTED = 500
_MOST_STEPS = 1_000
_MOST_POINTS = 12_000
"""Steps of an answer. It is made between two other requests: 0.08 s with as much as both allow."""


@dataclass(frozen=True, slots=True)
class Query:
    """Which anomalous series are wanted.

    Attributes:
        state: `open` are in an episode as of their newest step, `ended` were.
        since_ms: those with a step of an episode at or after this time only.
        limit: how many are listed, the first ones in order.
        steps: how many steps of each are given, the newest ones.
    """

    pipeline: str | None = None
    group: str | None = None
    match: Selector | None = None
    state: State = "all"
    since_ms: int | None = None
    limit: int = 50
    steps: int = 120

    @classmethod
    def parse(cls, given: Mapping[str, str], pipelines: Sequence[str]) -> "Query":
        """The query of a request's parameters.

        Raises:
            MalformedRequestError: naming the parameter, the value and what is allowed.
        """
        for name in given:
            if name not in _PARAMETERS:
                raise _wrong(name, f"there is none of this name; they are {', '.join(_PARAMETERS)}")
        pipeline = given.get("pipeline")
        if pipeline is not None and pipeline not in pipelines:
            raise _wrong("pipeline", f"there is no {pipeline!r}; they are {', '.join(pipelines)}")
        state = given.get("state", "all")
        if state not in get_args(State):
            raise _wrong("state", f"{state!r} is none of {', '.join(get_args(State))}")
        match = given.get("match")
        try:
            selector = None if match is None else Selector.parse(match)
        except ConfigError as exc:
            raise _wrong("match", str(exc)) from exc
        limit = _number("limit", given.get("limit", "50"), _MOST_LISTED)
        most = _MOST_POINTS // max(limit, 1)
        steps = _number("steps", given.get("steps", str(min(120, most))), _MOST_STEPS)
        if steps > most:
            raise _wrong("steps", f"{limit} x {steps} are more than {_MOST_POINTS} steps; ask for {most}")
        return cls(
            pipeline,
            given.get("group"),
            selector,
            state,  # type: ignore[arg-type]
            _time(given["since"]) if "since" in given else None,
            limit,
            steps,
        )


def _wrong(name: str, why: str) -> MalformedRequestError:
    return MalformedRequestError(f"parameter {name}: {why}")


def _number(name: str, text: str, most: int) -> int:
    # `isdigit` alone takes digits of every script, and `int` does too, but not all of the same ones.
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) <= most):
        raise _wrong(name, f"{text!r} is no number from 0 to {most}")
    return int(text)


def _time(text: str) -> int:
    digits = text.removeprefix("-")
    if digits.isascii() and digits.isdigit() and len(digits) < 16:
        return int(text)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise _wrong(
            "since", f"{text!r} is no time: Unix milliseconds, or ISO 8601 such as 2026-01-31T12:00:00Z"
        ) from None
    return round((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)
