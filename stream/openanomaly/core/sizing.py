"""How large an installation is for so many series: cores, memory, broker and target, from measured rates."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.windows.cost import FORECASTS_PER_CORE_S, series_bytes, work

DAY_S = 86_400


class Measured(NamedTuple):
    """A figure, and where it comes from.

    Attributes:
        bench: the command that measures it.
        said: how the row of that command in bench/README.md tells it.
    """

    value: float
    what: str
    bench: str
    said: str


class Rates:
    """Every measured figure that a size is computed from. Rates are those on Kafka, on one core."""

    receiver = Measured(2.41e6, "samples a second, receiver", "roles.py", "2.49 / 2.41 million")
    window = Measured(0.64e6, "samples a second, windows and scores", "roles.py", "0.59 / 0.64 million")
    inference = Measured(
        FORECASTS_PER_CORE_S,
        "forecasts a second, built-in model",
        "inference.py",
        "1,900 to 2,000 series a second on a core",
    )
    sink = Measured(545e3, "scores a second, sink", "roles.py", "669,000 / 545,000 scores")
    kafka_of_receiver = Measured(
        0.58, "cores of Kafka for one of receivers", "roles.py", "0.58 of the receiver's CPU"
    )
    kafka_of_window = Measured(0.29, "cores of Kafka for one of windows", "roles.py", "0.29 of the windows'")
    sample = Measured(37.5, "bytes on Kafka for a sample", "sizes.py", "37.5 bytes a sample")
    due = Measured(1_058, "bytes on Kafka for a context", "sizes.py", "1,058 a context")
    forecast = Measured(669, "bytes on Kafka for a forecast", "sizes.py", "669 a forecast")
    score = Measured(93, "bytes on Kafka for a score", "sizes.py", "93 a score")
    changelog = Measured(26, "bytes of changelogs for a step of a series", "sizes.py", "26 of changelogs")
    idle = Measured(228e6, "bytes of memory of a role without series", "sizes.py", "228 MB")
    receiver_series = Measured(
        743, "bytes of memory of the receiver for a series", "sizes.py", "743 of the receiver"
    )
    window_series = Measured(6_564, "bytes of memory of windows for a series", "sizes.py", "6,564 of windows")
    sink_series = Measured(3_495, "bytes of memory of the sink for a series", "sizes.py", "3,495 of the sink")
    partition_series = Measured(
        62_500, "series of a partition, the most that was tried", "migrate.py", "62,500 series"
    )

    @classmethod
    def all(cls) -> list[Measured]:
        return [value for value in vars(cls).values() if isinstance(value, Measured)]


_MEASURED = Pipeline(name="size")
"""Whose windows the bytes of `Rates` are for."""
_CONTEXT_STEP_BYTES = 2
"""A step more of a context (core/contexts.py)."""
_LEAST_PARTITIONS = 16
_SINK_SERIES = 500_000
"""So many series the sink remembers the encoded labels of (adapters/remote_write/encode.py)."""
_RING_TIMES = 1.5
"""The changelog of windows is kept for as many windows (core/windows/plan.py)."""


@dataclass(frozen=True, slots=True)
class Retentions:
    """How long Kafka keeps the records of a topic."""

    samples_s: float
    due_s: float
    forecasts_s: float
    scores_s: float


@dataclass(frozen=True, slots=True)
class Fleet:
    """What is watched, and how.

    Attributes:
        scrape_s: seconds between two samples of a series.
        is_all_emitted: every score is written; without it those of episodes alone.
        outputs: series that are written for each one that is scored.
        replication: copies of each topic on Kafka.
        use: share of a core or a GPU that is used in normal life; the rest is for what must be caught up.
        engine_per_s: forecasts a second of the engine, where it is not the built-in model on a core.
        worker_series: most series of one window worker.
    """

    series: int
    scrape_s: float
    pipeline: Pipeline
    is_all_emitted: bool
    outputs: int = 1
    replication: int = 3
    use: float = 0.5
    engine_per_s: float | None = None
    worker_series: int = 1_000_000


@dataclass(frozen=True, slots=True)
class RoleSize:
    """Attributes:
    cores: that its work keeps busy, all processes together.
    processes: that share it, each at most `Fleet.use` of a core.
    memory_bytes: of one process.
    """

    cores: float
    processes: int
    memory_bytes: float


@dataclass(frozen=True, slots=True)
class Size:
    """Attributes:
    roles: by their names; the engines of inference are cores, or GPUs where the fleet names their rate.
    kafka_cores: of all brokers, without replication.
    kafka_day_bytes: written a day, without replication.
    kafka_disk_bytes: held, with replication.
    target_series: new series in the target; None where it is those of episodes alone.
    target_samples_per_s: at most.
    """

    samples_per_s: float
    steps_per_s: float
    forecasts_per_s: float
    partitions: int
    roles: dict[str, RoleSize]
    kafka_cores: float
    kafka_day_bytes: float
    kafka_disk_bytes: float
    target_series: int | None
    target_samples_per_s: float


def size(fleet: Fleet, kept: Retentions) -> Size:
    """The size of an installation for a fleet. With several samples a step it is an upper limit: the rate of
    windows was measured with a step that closes at each sample.
    """
    pipeline, rates = fleet.pipeline, Rates
    done = work(pipeline, fleet.series)
    samples = fleet.series / fleet.scrape_s
    steps, forecasts = fleet.series / pipeline.step_s, done.forecasts_per_s
    scores = steps if fleet.is_all_emitted else 0.0
    cores = {
        "receiver": samples / rates.receiver.value,
        "window": max(samples, steps) / rates.window.value,
        "inference": forecasts / (fleet.engine_per_s or rates.inference.value),
        "sink": scores * fleet.outputs / rates.sink.value,
    }
    processes = {role: max(1, math.ceil(busy / fleet.use)) for role, busy in cores.items()}
    processes["window"] = max(processes["window"], math.ceil(fleet.series / fleet.worker_series))
    longer = pipeline.context - _MEASURED.context
    row_bytes = rates.window_series.value + series_bytes(pipeline).total - series_bytes(_MEASURED).total
    held = {
        "receiver": rates.receiver_series.value * fleet.series,
        "window": row_bytes * fleet.series / processes["window"],
        "inference": 0.0,
        "sink": rates.sink_series.value * min(fleet.series, _SINK_SERIES) if fleet.is_all_emitted else 0.0,
    }
    changelog_s = pipeline.context * pipeline.step_s * _RING_TIMES + kept.samples_s
    flows = [
        (samples * rates.sample.value, kept.samples_s),
        (forecasts * (rates.due.value + _CONTEXT_STEP_BYTES * longer), kept.due_s),
        (forecasts * rates.forecast.value, kept.forecasts_s),
        (scores * rates.score.value, kept.scores_s),
        (steps * rates.changelog.value, changelog_s),
    ]
    least = max(_LEAST_PARTITIONS, 2 * processes["window"], fleet.series / rates.partition_series.value)
    return Size(
        samples,
        steps,
        forecasts,
        1 << math.ceil(math.log2(least)),
        {role: RoleSize(cores[role], processes[role], rates.idle.value + held[role]) for role in cores},
        cores["receiver"] * rates.kafka_of_receiver.value + cores["window"] * rates.kafka_of_window.value,
        sum(each for each, _ in flows) * DAY_S,
        sum(each * kept_s for each, kept_s in flows) * fleet.replication,
        fleet.series * fleet.outputs if fleet.is_all_emitted else None,
        scores * fleet.outputs,
    )
