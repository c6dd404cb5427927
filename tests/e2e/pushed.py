"""A small fleet of test series: waves with noise, whose next sample a test can spoil."""

import time

import numpy as np

from openanomaly.core.series import Labels
from parts.victoria import VictoriaMetrics

STEP_MS = 1000
RANGE = 2.5
"""From the lowest to the highest normal value: a wave of amplitude 1 and noise of 0.25 around it."""

Scores = dict[str, dict[int, float]]
"""By the label `host`: timestamp_ms -> score."""


class Fleet:
    """`hosts` series with one sample per step of a second; the first one lies `steps` seconds back."""

    def __init__(self, hosts: int, steps: int) -> None:
        self.start_ms = (round(time.time()) - steps - 60) * 1000
        self.steps = steps
        self.names = [f"host-{i}" for i in range(hosts)]
        time_ms = np.arange(steps) * STEP_MS
        phase = np.linspace(0, 2 * np.pi, hosts, endpoint=False)[:, None]
        noise = np.random.default_rng(7).uniform(-0.25, 0.25, (hosts, steps))
        self.values = 50 + np.sin(2 * np.pi * time_ms / 24_000 + phase) + noise

    def labels(self, host: str) -> Labels:
        return (("__name__", "test_load"), ("host", host), ("job", "pushed"))

    def samples(self, first: int, last: int) -> dict[Labels, list[tuple[int, float]]]:
        """What every series has at the steps [first, last)."""
        return {
            self.labels(name): [
                (self.sampled_ms(step), float(self.values[i, step])) for step in range(first, last)
            ]
            for i, name in enumerate(self.names)
        }

    def sampled_ms(self, step: int) -> int:
        """When a step's sample was taken: in the middle of the step."""
        return self.start_ms + step * STEP_MS + STEP_MS // 2

    def scored_ms(self, step: int) -> int:
        """The timestamp of a step's score: the end of the step."""
        return self.start_ms + (step + 1) * STEP_MS


def scores(store: VictoriaMetrics) -> Scores:
    """The scores of the fleet that the store holds."""
    found = store.export('anomaly_score{for="test_load"}')
    return {dict(labels)["host"]: samples for labels, samples in found.items()}
