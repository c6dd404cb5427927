"""Recorded counters of a few machines, the same for the same start: what a database is filled with."""

import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from e2e.sender import push, request
from openanomaly.core.series import Labels, encode_labels

MODES = ("idle", "iowait", "system", "user")
CPUS = ("0", "1")
INTERVAL_MS = 1000
"""Of scrapes."""
_SHARE = (0.7, 0.05, 0.1, 0.15)
_PER_REQUEST = 5000


@dataclass
class NodeCpu:
    """`node_cpu_seconds_total` of two cores by mode, a sample a second from `start_ms` on.

    Attributes:
        values: (cores, modes, N), each ascending.
    """

    start_ms: int
    samples: int
    values: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(11)
        shape = len(CPUS), len(MODES), self.samples
        wave = 1 + 0.3 * np.sin(2 * np.pi * np.arange(self.samples) / 60 + rng.uniform(0, 6, (*shape[:2], 1)))
        busy = np.array(_SHARE)[None, :, None] * wave * rng.uniform(0.9, 1.1, shape)
        self.values = (np.cumsum(busy, axis=2) + 1000).round(3)

    @classmethod
    def around_now(cls, before_s: int, after_s: int) -> "NodeCpu":
        """Recorded from the past into the future: a database shows what the clock has reached."""
        return cls((int(time.time()) - before_s) * 1000, before_s + after_s)

    @property
    def end_ms(self) -> int:
        """Time of the last sample."""
        return self.start_ms + (self.samples - 1) * INTERVAL_MS

    def labels(self, cpu: str, mode: str) -> Labels:
        return (
            ("__name__", "node_cpu_seconds_total"),
            ("cpu", cpu),
            ("instance", "web:9100"),
            ("mode", mode),
        )

    def block(self, cpu: str, mode: str) -> bytes:
        return encode_labels(self.labels(cpu, mode))

    @property
    def blocks(self) -> list[bytes]:
        return [self.block(cpu, mode) for cpu in CPUS for mode in MODES]

    def of(self, block: bytes) -> dict[int, float]:
        """Samples of a series: timestamp_ms -> value."""
        cpu, mode = divmod(self.blocks.index(block), len(MODES))
        times = self.start_ms + np.arange(self.samples) * INTERVAL_MS
        return dict(zip(times.tolist(), self.values[cpu, mode].tolist(), strict=True))

    def push(self, write_url: str) -> None:
        """Fill a database, in the order of time."""
        span = _PER_REQUEST // (len(CPUS) * len(MODES))
        every = {labels: list(self.of(encode_labels(labels)).items()) for labels in self._all_labels()}
        for i in range(0, self.samples, span):
            push(write_url, request({labels: pairs[i : i + span] for labels, pairs in every.items()}))

    def _all_labels(self) -> list[Labels]:
        return [self.labels(cpu, mode) for cpu in CPUS for mode in MODES]
