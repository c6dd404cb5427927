"""A fleet whose every value is known: it depends on a seed, the series and the step alone."""

from functools import lru_cache
from itertools import pairwise

import cramjam
import numpy as np
from numpy.typing import NDArray

from openanomaly.core.series import encode_labels, varint

STEP_MS = 1000
PER_REQUEST = 2000
_SAMPLE = b"\x12\x10\x09" + bytes(8) + b"\x10" + bytes(6)
"""A sample of remote-write 1.0 whose timestamp is a varint of six bytes."""


class Fleet:
    """N series with one sample in the middle of each step, in requests of up to 2,000 samples."""

    def __init__(self, series: int, start_ms: int, seed: int = 0, per_request: int = PER_REQUEST) -> None:
        self.series, self.seed = series, seed
        self.start_ms = start_ms - start_ms % STEP_MS
        self.blocks = [
            encode_labels([("__name__", "chaos_load"), ("host", f"host-{i:07d}"), ("job", "chaos")])
            for i in range(series)
        ]
        self.slices = [slice(a, b) for a, b in pairwise([*range(0, series, per_request), series])]
        bodies = [block + _SAMPLE for block in self.blocks]
        records = b"".join(b"\x0a" + varint(len(body)) + body for body in bodies)
        self._records = np.frombuffer(records, np.uint8).reshape(series, -1)
        self._phase = np.linspace(0, 2 * np.pi, series, endpoint=False)
        self.values = lru_cache(64)(self._values)

    def _values(self, step: int) -> NDArray[np.float64]:
        """(N,) a wave with noise, and now and then an outlier.

        Around zero: forecasts are written as float16 beside a float32, and where that is small two of them
        hardly ever have the same median by chance, so that the oracle can tell them apart.
        """
        rng = np.random.default_rng((self.seed, step))
        value = 10 * np.sin(2 * np.pi * step / 24 + self._phase) + rng.standard_normal(self.series)
        value[rng.random(self.series) < 0.001] += 40
        return value

    def sampled_ms(self, step: int) -> int:
        return self.start_ms + step * STEP_MS + STEP_MS // 2

    def scored_ms(self, step: int) -> int:
        """The timestamp of a step's score: its end."""
        return self.start_ms + (step + 1) * STEP_MS

    def body(self, step: int, request: int) -> bytes:
        """One request of a step."""
        part, time_ms = self.slices[request], self.sampled_ms(step)
        records = self._records[part].copy()
        records[:, -15:-7] = self.values(step)[part].astype("<f8").view(np.uint8).reshape(-1, 8)
        records[:, -6:] = [time_ms >> 7 * i & 0x7F | (0x80 if i < 5 else 0) for i in range(6)]
        return bytes(cramjam.snappy.compress_raw(records.tobytes()))
