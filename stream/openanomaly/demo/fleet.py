"""A simulated fleet: what its series do on a normal day. The same seed gives the same fleet.

Time is counted in steps, 288 to a day. A series is a gauge, or a counter whose rate is what is
simulated here; faults.py makes samples of both.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.series import Labels, canonical

DAY = 288
"""Steps of a day."""

F64 = NDArray[np.float64]
Index = NDArray[np.int64]


class Kind(IntEnum):
    """How a series moves."""

    DAILY = 0
    """A daily shape and noise."""
    COUNTER = 1
    """A counter; its rate has a daily shape and noise."""
    NOISY = 2
    """Noise around a level, with more or less memory."""
    SPIKY = 3
    """Low, with bursts at random times."""
    WARMING = 4
    """Small after a start, then growing until it is full: memory with caches in it."""
    CONSTANT = 5


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric that every instance of a job has."""

    job: str
    name: str
    kind: Kind
    level: float
    labels: Labels = ()


METRICS = (
    Metric("api", "http_requests_total", Kind.COUNTER, 120.0, (("code", "200"),)),
    Metric("api", "http_requests_total", Kind.COUNTER, 9.0, (("code", "404"),)),
    Metric("api", "http_requests_in_flight", Kind.DAILY, 20.0),
    Metric("api", "http_request_duration_seconds_mean", Kind.NOISY, 0.08),
    Metric("api", "process_resident_memory_bytes", Kind.WARMING, 4e8),
    Metric("api", "process_max_fds", Kind.CONSTANT, 1048576.0),
    Metric("node", "node_cpu_usage_ratio", Kind.DAILY, 0.4),
    Metric("node", "node_memory_used_bytes", Kind.DAILY, 1.6e10),
    Metric("node", "node_load1", Kind.NOISY, 2.5),
    Metric("node", "node_network_receive_bytes_total", Kind.COUNTER, 2.4e6, (("device", "eth0"),)),
    Metric("node", "node_disk_written_bytes_total", Kind.COUNTER, 4e5, (("device", "nvme0n1"),)),
    Metric("node", "node_memory_MemTotal_bytes", Kind.CONSTANT, 3.4e10),
    Metric("db", "db_connections", Kind.DAILY, 80.0),
    Metric("db", "db_transactions_total", Kind.COUNTER, 310.0),
    Metric("db", "db_query_seconds_mean", Kind.NOISY, 0.012),
    Metric("db", "db_replication_lag_seconds", Kind.SPIKY, 1.5),
    Metric("db", "db_max_connections", Kind.CONSTANT, 500.0),
    Metric("queue", "queue_published_total", Kind.COUNTER, 90.0),
    Metric("queue", "queue_messages_ready", Kind.SPIKY, 240.0),
    Metric("queue", "queue_oldest_message_seconds", Kind.NOISY, 3.0),
    Metric("queue", "queue_consumers", Kind.CONSTANT, 12.0),
    Metric("batch", "batch_rows_total", Kind.COUNTER, 5200.0),
    Metric("batch", "batch_run_seconds", Kind.NOISY, 45.0),
    Metric("batch", "batch_heap_used_bytes", Kind.NOISY, 9e8),
)


class Fleet:
    """`series` series of instances of five jobs, and their normal life step by step.

    Attributes:
        labels: of each series, canonical.
        kind: (S,) Kind.
        job, instance: of each series.
    """

    def __init__(self, series: int, seed: int) -> None:
        self.labels: list[Labels] = []
        self.job: list[str] = []
        self.instance: list[str] = []
        metrics = []
        for i in range(series):
            number, metric = i // len(METRICS), METRICS[i % len(METRICS)]
            instance = f"{metric.job}-{number}.demo:9100"
            own = (("__name__", metric.name), ("instance", instance), ("job", metric.job))
            self.labels.append(canonical(own + metric.labels))
            self.job.append(metric.job)
            self.instance.append(instance)
            metrics.append(metric)
        self.kind = np.array([m.kind for m in metrics])
        self.step = 0
        self._random = random = np.random.default_rng(seed)
        kind, s = self.kind, series
        self._is_daily = (kind == Kind.DAILY) | (kind == Kind.COUNTER)
        constant = kind == Kind.CONSTANT
        # Instances of a job do not carry quite the same load; what is configured is the same on all.
        self._level = np.array([m.level for m in metrics]) * np.where(
            constant, 1, random.uniform(0.6, 1.4, s)
        )
        self._swing = np.where(self._is_daily, random.uniform(0.3, 0.55, s), 0.0)
        self._phase = 2 * np.pi * random.normal(0.0, 0.03, s)
        self._noon = random.uniform(0.1, 0.3, s)
        noise = np.select(
            [self._is_daily, kind == Kind.NOISY, kind == Kind.SPIKY, kind == Kind.WARMING],
            [self._swing * random.uniform(0.04, 0.15, s), random.uniform(0.05, 0.2, s), 0.02, 0.005],
            0.0,
        )
        self._noise = noise
        self._memory = random.uniform(0.0, 0.8, s)
        self._near = random.standard_normal(s)
        self._up_steps = np.zeros(s)
        self._warm_steps = random.uniform(10.0, 40.0, s)

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, i: int) -> str:
        """A series for people, as PromQL writes it, without its job: that is in the instance."""
        labels = dict(self.labels[i])
        name = labels.pop("__name__")
        labels.pop("job")
        labels["instance"] = labels["instance"].partition(".")[0]
        return f"{name}{{{','.join(f'{k}={v}' for k, v in labels.items())}}}"

    def take(self, steps: int) -> F64:
        """(steps, S) what comes next: values of gauges, rates per second of counters; never negative."""
        return np.stack([self._one() for _ in range(steps)])

    def _one(self) -> F64:
        random, s = self._random, len(self)
        day = 2 * np.pi * self.step / DAY + self._phase
        shape = self._swing * (np.sin(day) + self._noon * np.sin(2 * day)) / (1 + self._noon)
        self._near *= self._memory
        self._near += np.sqrt(1 - self._memory**2) * random.standard_normal(s)
        burst = np.where(random.random(s) < 1 / 30, random.gamma(4.0, 0.25, s), 0.0)
        self._up_steps += 1
        warm = 1 - 0.6 * np.exp(-self._up_steps / self._warm_steps)
        base = np.select([self.kind == Kind.SPIKY, self.kind == Kind.WARMING], [0.1 + burst, warm], 1 + shape)
        self.step += 1
        out: F64 = np.maximum(self._level * (base + self._noise * self._near), 0.0)
        return out

    def restart(self, rows: Index) -> None:
        """Their processes begin anew."""
        self._up_steps[rows] = 0.0
