"""Remote-write requests of the simulated fleet, as a Prometheus would send them."""

import numpy as np
from numpy.typing import NDArray

from openanomaly.adapters.remote_write.encode import encode_samples, pack
from openanomaly.core.series import Labels, encode_labels, varint
from openanomaly.demo.faults import Samples

_REQUEST_SAMPLES = 10_000
SAMPLE_BYTES = 18


class Writer:
    """Makes requests of steps; samples of a series are in the order of their times."""

    def __init__(self, labels: list[Labels]) -> None:
        self._blocks = [encode_labels(own) for own in labels]

    def requests(
        self, samples: Samples, timestamp_ms: NDArray[np.int64], series: slice = slice(None)
    ) -> list[bytes]:
        """Bodies that hold the samples of some series once, of different ones each.

        `timestamp_ms` is (steps,).
        """
        steps = len(timestamp_ms)
        per_request = max(1, _REQUEST_SAMPLES // steps)
        out = []
        numbers = np.arange(len(self._blocks))[series]
        for start in range(0, len(numbers), per_request):
            part = numbers[start : start + per_request]
            value, is_there = samples.value[:, part].T, samples.is_there[:, part].T
            time = np.broadcast_to(timestamp_ms, value.shape)
            encoded = encode_samples(time[is_there], value[is_there])
            stop = np.cumsum(is_there.sum(axis=1)) * SAMPLE_BYTES
            parts = []
            for i, begin, end in zip(part.tolist(), [0, *stop.tolist()], stop.tolist(), strict=False):
                if tail := encoded[begin:end]:
                    block = self._blocks[i]
                    parts += [b"\x0a", varint(len(block) + len(tail)), block, tail]
            out.append(pack(parts))
        return out
