"""What a record on the broker holds, in a few words: for people who look at one that was set aside."""

from collections.abc import Callable
from typing import Any

from openanomaly.core.frames import DueFrame, ForecastFrame, SampleFrame, ScoreFrame
from openanomaly.errors import RejectedError

Summary = dict[str, Any]
_WORDS = 500


def summary(topic: str, record: bytes) -> Summary | None:
    """Kind, size and times of a frame, by the last part of its topic's name; None for other topics.

    `unreadable` says why the frame cannot be read. Labels are not looked at: they may be large.
    """
    known = _KINDS.get(topic)
    if known is None:
        return None
    kind, describe = known
    try:
        return {"kind": kind, **describe(record)}
    except RejectedError as exc:
        return {"kind": kind, "unreadable": str(exc)}
    except Exception as exc:  # what crashed its worker when it was decoded must not crash who looks at it
        return {"kind": kind, "unreadable": f"{type(exc).__name__}: {exc}"[:_WORDS]}


def _samples(record: bytes) -> Summary:
    frame = SampleFrame.decode(record)
    return {"series": len(frame.series), "samples": len(frame.row), **_times(frame.timestamp_ms)}


def _due(record: bytes) -> Summary:
    frame = DueFrame.decode(record)
    return {
        "series": len(frame.row),
        "steps": frame.context.length,
        "model": frame.model,
        "horizon": frame.horizon,
        "useful_until_ms": frame.useful_until_ms,
    }


def _forecasts(record: bytes) -> Summary:
    frame = ForecastFrame.decode(record)
    return {"series": len(frame.row), "quantiles": len(frame.level), "horizon": frame.quantile.shape[2]}


def _scores(record: bytes) -> Summary:
    frame = ScoreFrame.decode(record)
    return {
        "pipeline": frame.pipeline,
        "series": len(frame.series),
        "samples": len(frame.row),
        **_times(frame.timestamp_ms),
    }


def _times(timestamp_ms: Any) -> Summary:
    if not timestamp_ms.size:
        return {}
    return {"from_ms": int(timestamp_ms.min()), "to_ms": int(timestamp_ms.max())}


_KINDS: dict[str, tuple[str, Callable[[bytes], Summary]]] = {
    "samples": ("SampleFrame", _samples),
    "due": ("DueFrame", _due),
    "forecasts": ("ForecastFrame", _forecasts),
    "scores": ("ScoreFrame", _scores),
}
