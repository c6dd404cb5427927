"""Calendar windows in which a pipeline raises no alarm."""

import re
from collections.abc import Sequence
from datetime import datetime, time
from enum import IntEnum
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationInfo, field_validator

from openanomaly.core.pipelines.options import FROM_JSON, Options

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_MIDNIGHT = time(0)
CLOCK = r"^([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?$"


class Muted(IntEnum):
    """What a window does to a step."""

    NO = 0
    LEARNED = 1
    """Scored below the alarm, and learned from."""
    IGNORED = 2
    """No score, and nothing is learned."""


class MuteWindow(Options):
    """Hours of some days, in the time of a place. `end` before `start` is on the next day."""

    days: Annotated[tuple[Day, ...], Field(min_length=1)] = _DAYS
    """Days on which it starts."""
    start: time = _MIDNIGHT
    """Time of the clock at which it begins, as HH:MM."""
    end: time = _MIDNIGHT
    """Not included; the same as `start` is a whole day."""
    timezone: Annotated[str, Field(json_schema_extra={"format": "time-zone"})] = "UTC"
    """Name in the time zone database: hours follow its daylight saving."""
    learn: bool = True
    """False: what happens in the window is no part of normal life, a backup for one."""

    @field_validator("start", "end", mode="before")
    @classmethod
    def _is_clock(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, str) and re.fullmatch(CLOCK[1:-1], value, re.ASCII):
            return time.fromisoformat(value)
        # YAML 1.1 reads 22:00 without quotes as a number in base 60, and 09:00 as text. JSON does not.
        if isinstance(value, int | float) and info.context is not FROM_JSON:
            minutes = value / 60 if value >= 3600 else value  # HH:MM:SS begins at 1:00:00
            if not 0 <= minutes < 24 * 60 or minutes != int(minutes):
                raise ValueError(f"expected HH:MM, found {value}")
            return time(int(minutes) // 60, int(minutes) % 60)
        return value

    @field_validator("start", "end")
    @classmethod
    def _is_local(cls, value: time) -> time:
        if value.tzinfo is not None:
            raise ValueError(f"expected HH:MM, found {value}; the zone is `timezone`")
        return value

    @field_validator("timezone")
    @classmethod
    def _is_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ValueError, OSError, LookupError) as exc:
            raise ValueError(f"there is no time zone {value!r}") from exc
        return value

    def holds(self, timestamp_ms: int) -> bool:
        """Whether a moment is in the window."""
        local = datetime.fromtimestamp(timestamp_ms / 1000, ZoneInfo(self.timezone))
        now, today = local.time(), _DAYS[local.weekday()]
        if self.start < self.end:
            return today in self.days and self.start <= now < self.end
        yesterday = _DAYS[local.weekday() - 1]
        return (today in self.days and now >= self.start) or (yesterday in self.days and now < self.end)


def muted(windows: Sequence[MuteWindow], timestamp_ms: NDArray[np.int64]) -> NDArray[np.uint8] | None:
    """(n,) Muted for each moment; None if none of them is. Windows that ignore a step win.

    Steps of one call end at a few moments, however many rows there are.
    """
    if not windows:
        return None
    moments, which = np.unique(timestamp_ms, return_inverse=True)
    found = np.array([_muted(windows, moment) for moment in moments.tolist()], np.uint8)
    return found[which] if found.any() else None


def _muted(windows: Sequence[MuteWindow], timestamp_ms: int) -> Muted:
    holding = [window for window in windows if window.holds(timestamp_ms)]
    if not holding:
        return Muted.NO
    return Muted.LEARNED if all(window.learn for window in holding) else Muted.IGNORED
