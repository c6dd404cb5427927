"""Frames and boards for tests of what is anomalous."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from openanomaly.core.anomalies.board import Board, Limits
from openanomaly.core.anomalies.query import Query
from openanomaly.core.anomalies.report import report
from openanomaly.core.census import Census
from openanomaly.core.frames import ScoreFlag, ScoreFrame
from openanomaly.core.series import Labels
from scores import NOW_MS, score_frame

START, OPEN, END = ScoreFlag.START | ScoreFlag.OPEN, ScoreFlag.OPEN, ScoreFlag.END
STEP_MS = 60_000


def series(name: str, **labels: str) -> Labels:
    return tuple(sorted({"__name__": name, **labels}.items()))


def hosts(count: int, job: str = "node") -> list[Labels]:
    return [series("load", instance=f"host-{i}", job=job) for i in range(count)]


def step(
    labels: Sequence[Labels],
    number: int,
    flags: Mapping[int, int] | None = None,
    score: Mapping[int, float] | None = None,
    **fields: Any,
) -> ScoreFrame:
    """Step `number` of every series; flags and scores by place, else those of a normal step."""
    frame = score_frame(
        labels,
        score=[(score or {}).get(i, 2.0 if i in (flags or {}) else 0.1) for i in range(len(labels))],
        flags=[(flags or {}).get(i, 0) for i in range(len(labels))],
        timestamp_ms=[NOW_MS + number * STEP_MS] * len(labels),
        closed_ms=NOW_MS + number * STEP_MS,
    )
    return replace(frame, **fields)


def census(number: int, pipeline: str = "default", **told: Any) -> ScoreFrame:
    """How 40 series stand after step `number`."""
    given = {
        "series": 40, "judged": 40, "unforecast": 0, "steps_left": 0, "closed": 40,
        "newest_ms": NOW_MS + number * STEP_MS, "emits_all": True,
    }  # fmt: skip
    frame = ScoreFrame.of_census(pipeline, STEP_MS, Census(**given | told), NOW_MS + number * STEP_MS)
    return ScoreFrame.decode(frame.encode())


def board(*frames: ScoreFrame, **limits: int) -> Board:
    out = Board(Limits(**limits))
    for frame in frames:
        give(out, frame)
    return out


def give(found: Board, frame: ScoreFrame, partition: int = 0) -> None:
    """A frame that comes as soon as its steps have closed."""
    found.take(frame, frame.closed_ms, partition)


def shown(found: Board, **query: Any) -> dict[str, Any]:
    return report(found, Query(**query))


def names(found: dict[str, Any]) -> list[str]:
    """The instances of the anomalies, in their order."""
    return [anomaly["labels"]["instance"] for anomaly in found["anomalies"]]
