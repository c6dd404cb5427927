"""What the rooms of this process say of themselves, for the status page."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from prometheus_client import Counter, Gauge
from prometheus_client.samples import Sample

from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.settings import Settings
from openanomaly.telemetry import Telemetry
from openanomaly.web.server import Health

Reports = Mapping[str, Callable[[], Mapping[str, Any]]]


class Following(Protocol):
    """How well the scores are read (broker/follow.py)."""

    unread: int
    taken: int
    rejected: int
    missed: int
    error: str | None
    since_s: float

    @property
    def behind_s(self) -> float: ...


class Overview:
    """Fields `watched` and `health`; what only another process knows is None."""

    def __init__(
        self,
        settings: Settings,
        roles: Sequence[str],
        telemetry: Telemetry,
        health: Health,
        reports: Reports,
        following: Following,
        pipelines: Callable[[], Sequence[Pipeline]],
    ) -> None:
        self._settings = settings
        self._roles = roles
        self._telemetry = telemetry
        self._health = health
        self._reports = reports
        self._following = following
        self._pipelines = pipelines

    def __call__(self) -> dict[str, Any]:
        window = self._report("window")
        return {"watched": self._watched(window), "health": self._state(window)}

    def _report(self, room: str) -> Mapping[str, Any] | None:
        report = self._reports.get(room)
        return None if report is None else report()

    def _watched(self, window: Mapping[str, Any] | None) -> dict[str, Any]:
        receives = "receiver" in self._roles
        receiver = self._telemetry.receiver
        counts = {} if window is None else window["counts"]
        return {
            "series": None if window is None else window["series"],
            "max_series": None if window is None else window["max_series"],
            "steps_closed": None if window is None else counts.get("closed_steps", 0),
            "steps_scored": None if window is None else counts.get("scored", 0),
            "samples": _total(receiver.samples) if receives else None,
            "samples_published": _total(receiver.published) if receives else None,
            "pipelines": [
                {
                    "name": p.name,
                    "selector": p.selector,
                    "step_ms": p.step_ms,
                    "warmup": p.score.warmup,
                    "alert_score": p.score.alert_score,
                }
                for p in self._pipelines()
            ],
            "write_path": "/api/v1/write" if receives else None,
            "needs_credentials": self._settings.web.auth.is_set,
        }

    def _state(self, window: Mapping[str, Any] | None) -> dict[str, Any]:
        reasons = Health.reasons(self._health.ready) | Health.reasons(self._health.alive)
        sink, inference = self._report("sink"), self._report("inference")
        follow = self._following
        return {
            "roles": list(self._roles),
            "is_ready": not reasons,
            "reasons": reasons,
            "lag": self._lag(),
            "target": {
                "is_set": self._settings.sink.url is not None,
                "is_up": None if sink is None else sink["up"],
            },
            "models": None if inference is None else dict(inference["models"]),
            "emit": None if window is None else window["emit"],
            "scores": {
                # Not the error itself: it names hosts, and is in the log.
                "is_connected": follow.error is None,
                "since_ms": int(follow.since_s * 1000),
                "unread": follow.unread,
                "behind_s": round(follow.behind_s, 1),
                "taken": follow.taken,
                "rejected": follow.rejected,
                "missed": follow.missed,
            },
        }

    def _lag(self) -> list[dict[str, Any]]:
        """Unread records of every room in this process, and since when the oldest of them is there."""
        lag = self._telemetry.lag
        oldest = {(s.labels["role"], s.labels["topic"]): s.value for s in _samples(lag.oldest_seconds)}
        prefix = self._settings.broker.topic_prefix + "."
        return [
            {
                "role": s.labels["role"],
                "topic": s.labels["topic"].removeprefix(prefix),
                "unread": int(s.value),
                "oldest_s": round(oldest.get((s.labels["role"], s.labels["topic"]), 0.0), 1),
            }
            for s in sorted(_samples(lag.records), key=_place)
        ]


_ROLES = ("window", "infer", "sink")


def _place(sample: Sample) -> tuple[int, str]:
    """Where data come by first stands first."""
    role = sample.labels["role"]
    return _ROLES.index(role) if role in _ROLES else len(_ROLES), sample.labels["topic"]


def _total(counter: Counter) -> int:
    return int(sum(s.value for s in _samples(counter) if s.name.endswith("_total")))


def _samples(metric: Counter | Gauge) -> list[Sample]:
    return [sample for family in metric.collect() for sample in family.samples]
