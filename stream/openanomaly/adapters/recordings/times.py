"""Timestamps as people write them: Unix time in s, ms, us or ns, or ISO 8601; and back."""

import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Style = Literal["s", "ms", "us", "ns", "iso"]
"""How a file writes its timestamps; those of the output are written so too."""

_PER_MS: dict[Style, float] = {"s": 1e-3, "ms": 1.0, "us": 1e3, "ns": 1e6}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOST = 2.0**62


class TimeError(ValueError):
    """A timestamp cannot be read; `at` is its position."""

    def __init__(self, at: int, text: str) -> None:
        super().__init__(
            f"{text!r} is no timestamp: expected Unix time or ISO 8601, such as 2026-01-31T08:00:00Z"
        )
        self.at = at


def style_of(text: str) -> Style:
    """How a timestamp is written. Numbers are told apart by their size.

    Raises:
        TimeError: it is none.
    """
    try:
        size = abs(float(text))
    except ValueError:
        _iso(0, text)
        return "iso"
    if not size < _MOST:
        raise TimeError(0, text)
    # 1e11 s are the year 5138, and 1e11 ms are 1973.
    return "s" if size < 1e11 else "ms" if size < 1e14 else "us" if size < 1e17 else "ns"


def parse(texts: Sequence[str], style: Style) -> NDArray[np.int64]:
    """(N,) Unix time in ms, rounded to the nearest. Without a zone a time is UTC.

    Raises:
        TimeError: one of them is not written so.
    """
    return _parse_iso(texts) if style == "iso" else _parse_numbers(texts, style)


def of_numbers(values: NDArray[np.float64] | NDArray[np.int64], style: Style) -> NDArray[np.int64]:
    """The same of numbers."""
    if values.dtype.kind in "iu":
        if style == "s":
            return values.astype(np.int64) * 1000
        per_ms = round(_PER_MS[style])
        return (values.astype(np.int64) + per_ms // 2) // per_ms
    return np.rint(values / _PER_MS[style]).astype(np.int64)


def _parse_numbers(texts: Sequence[str], style: Style) -> NDArray[np.int64]:
    try:
        values = np.array(list(map(float, texts)))
    except ValueError:
        at = next(i for i, text in enumerate(texts) if not _is_number(text))
        raise TimeError(at, texts[at]) from None
    if not (good := np.abs(values) < _MOST).all():
        at = int(np.argmin(good))
        raise TimeError(at, texts[at])
    return of_numbers(values, style)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _parse_iso(texts: Sequence[str]) -> NDArray[np.int64]:
    # numpy knows no zones, and reads words such as "now": only what begins and ends like a plain time.
    plain = [text.strip().removesuffix("Z").removesuffix("+00:00") for text in texts]
    if all(text[:4].isdigit() and text[4:5] == "-" and text[-1:].isdigit() for text in plain) and not any(
        "+" in text or text.count("-") != 2 for text in plain
    ):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                found: NDArray[np.int64] = np.array(plain, "datetime64[ms]").astype(np.int64)
            return found
        except (ValueError, Warning):
            pass
    return np.array([_iso(i, text) for i, text in enumerate(texts)], np.int64)


def _iso(at: int, text: str) -> int:
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise TimeError(at, text) from None
    if found.tzinfo is None:
        found = found.replace(tzinfo=UTC)
    since = found - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1000 + round(since.microseconds / 1000)


def show(timestamp_ms: NDArray[np.int64], style: Style) -> list[str]:
    """Timestamps as text in a style."""
    if style == "iso":
        unit = "s" if not (timestamp_ms % 1000).any() else "ms"
        moments = timestamp_ms.astype("datetime64[ms]").astype(f"datetime64[{unit}]")
        return [f"{text}Z" for text in np.datetime_as_string(moments)]
    if style == "s":
        if (timestamp_ms % 1000).any():
            return [f"{t / 1000:.3f}" for t in timestamp_ms.tolist()]
        return list(map(str, (timestamp_ms // 1000).tolist()))
    return list(map(str, (timestamp_ms * round(_PER_MS[style])).tolist()))
