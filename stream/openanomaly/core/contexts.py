"""Contexts as they travel: float16 beside a centre and a scale of their row, 2 bytes a step.

A scale is a power of two, so only float16 rounds: a context keeps 11 bits of the distance from its
centre, and small integers, on/off series and constants come through as they are. The centre is the
median of nine steps, which one outlier does not move. (float16 reaches down to 2^-39 of the largest
distance with an outlier, where fixed point would have lost everything but the outlier.)
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F16 = NDArray[np.float16]

PROBES = 9
"""Steps whose median is the centre, evenly spread over the context."""
EXPONENT = 15
"""The largest distance is just below 2^15 scales: float16 ends at 65504."""
SMALLEST = -126
"""Exponent of the smallest scale, a normal float32."""
_LARGE = 1e34
"""A scale beyond which float32 could overflow on the way back."""


def probes(length: int) -> NDArray[np.int64]:
    """Positions of the steps whose median is the centre."""
    found: NDArray[np.int64] = np.arange(PROBES) * (length - 1) // (PROBES - 1)
    return found


@dataclass(frozen=True, slots=True)
class Contexts:
    """N contexts of T steps, oldest first.

    Attributes:
        packed: (N, T) float16, (x - center) / scale; NaN for a missing step.
        center: (N,) float32, 0 where no step is there.
        scale: (N,) float32, powers of two.
    """

    packed: F16
    center: F32
    scale: F32

    def __len__(self) -> int:
        return len(self.packed)

    @property
    def length(self) -> int:
        """Steps of a context."""
        return int(self.packed.shape[1])

    def take(self, rows: slice | NDArray[np.int64]) -> "Contexts":
        """Some of them."""
        return Contexts(self.packed[rows], self.center[rows], self.scale[rows])

    def last(self, steps: int) -> F32:
        """(N, steps) float32, the newest steps."""
        packed = self.packed[:, self.length - steps :].astype(np.float32)
        if (self.scale > _LARGE).any():  # float32 could overflow between the product and the sum
            wide = packed.astype(np.float64) * self.scale[:, None] + self.center[:, None]
            return wide.astype(np.float32)
        packed *= self.scale[:, None]
        packed += self.center[:, None]
        return packed

    @property
    def values(self) -> F32:
        """(N, T) float32."""
        return self.last(self.length)

    @classmethod
    def pack(cls, context: F32) -> "Contexts":
        """From (N, T) float32, NaN for a missing step."""
        n, length = context.shape
        known = np.isfinite(context)
        tried = np.sort(np.where(known, context, np.float32(np.nan))[:, probes(length)], axis=1)
        count = np.isfinite(tried).sum(axis=1)
        center = tried[np.arange(n), np.maximum(count - 1, 0) // 2]
        if (odd := np.flatnonzero(count == 0)).size:
            newest = length - 1 - np.argmax(known[odd, ::-1], axis=1)
            center[odd] = np.where(known[odd, newest], context[odd, newest], 0)
        center += np.float32(0)  # no negative zero
        distance = context.astype(np.float64)
        distance -= center[:, None]
        distance[~known] = np.nan
        size = np.fmax.reduce(np.abs(distance), axis=1, initial=0.0)
        exponent = np.maximum(np.frexp(size)[1] - EXPONENT, SMALLEST)
        exponent[size == 0] = 0
        distance *= np.ldexp(1.0, -exponent)[:, None]
        packed = distance.astype(np.float32).astype(np.float16)
        return cls(packed, center, np.ldexp(np.float32(1), exponent))
