"""A fleet whose installation moves, and the command that moves it."""

import contextlib
import functools
import json
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from e2e.sender import push, request
from openanomaly.core.series import Labels
from parts.part import wait_until
from parts.product import Product
from parts.recorder import Recorder
from scores import samples

STEP_MS = 60_000
STEPS, AFTER = 120, 50
"""Before the move, and after it."""

COMMON = {"model": "statistical", "min_context": 8, "context": 64, "horizon": 64, "forecast_every": 4}
PIPELINES = [
    {"name": "all", "selector": '{__name__=~"moved_.+"}', "step_s": 60, **COMMON},
    {"name": "totals", "selector": "moved_requests_total", "step_s": 60, **COMMON, "forecast_every": 8},
    {"name": "slow", "selector": "moved_load", "step_s": 120, "aggregate": "max", **COMMON},
]
# Steps close by samples alone: what a clock does differs from one run to the next.
RULES = {"lateness_s": 3600, "score": {"warmup": 16, "block": 24}}


def config(partitions: int, prefix: str) -> dict[str, Any]:
    return {
        "broker": {"partitions": partitions, "topic_prefix": prefix, "session_timeout_s": 6},
        "sink": {"emit": "all", "backoff_max_s": 1.0, "batch_wait_s": 0.05},
        "window": {"checkpoint_s": 3600},
        "inference": {"max_wait_s": 0.01},
        "pipelines": [{**p, **RULES} for p in PIPELINES],
    }


class Fleet:
    """Gauges, counters and series of large values; one goes silent, one is odd just before the move."""

    def __init__(self, hosts: int = 5) -> None:
        total = STEPS + AFTER + 1
        self.start_ms = (round(time.time()) // 60 - total - 30) * STEP_MS
        rng = np.random.default_rng(11)
        self.values: dict[Labels, Any] = {}
        for i in range(hosts):
            wave = np.sin(np.arange(total) * (0.3 + i / 10)) + rng.uniform(-0.25, 0.25, total)
            self._add("moved_load", i, 50 + wave)
            self._add("moved_requests_total", i, np.cumsum(rng.uniform(5, 9, total)))
            self._add("moved_bytes", i, 5e9 + rng.integers(0, 1000, total))
        self.odd = self._labels("moved_load", 0)
        self.values[self.odd][STEPS - 2 : STEPS + 3] += 8.0
        self.values[self._labels("moved_load", 1)][STEPS // 2 :] = np.nan  # sends no more

    @staticmethod
    def _labels(name: str, host: int) -> Labels:
        return (("__name__", name), ("host", f"host-{host}"))

    def _add(self, name: str, host: int, values: Any) -> None:
        self.values[self._labels(name, host)] = values

    def send(self, product: Product, first: int, last: int, at_ms: int = 10_000) -> int:
        """The steps [first, last) of all series, in one request; how many samples that is."""
        sent = {
            labels: [(self.start_ms + i * STEP_MS + at_ms, float(values[i])) for i in range(first, last)]
            for labels, values in self.values.items()
            if np.isfinite(values[first:last]).all()
        }
        push(product.write_url, request(sent))
        return sum(map(len, sent.values()))

    def scored_ms(self, step: int) -> int:
        return self.start_ms + (step + 1) * STEP_MS


_CONTEXTS, _FORECASTS = "openanomaly_window_contexts_total", "openanomaly_inference_forecasts_total"
_APPLIED, _IN = "openanomaly_window_forecasts_applied_total", "openanomaly_window_samples_total"
_SCORED = "openanomaly_window_scores_emitted_total"


def when_quiet(product: Product) -> dict[str, float]:
    """Its metrics when everything that was sent has had its effect."""
    seen: list[tuple[float, ...]] = []

    def is_quiet() -> bool:
        m = product.metrics()
        seen.append(tuple(m[name] for name in (_CONTEXTS, _FORECASTS, _APPLIED, _IN, _SCORED)))
        # What moved with the broker is answered too, and was asked by others.
        is_answered = m[_CONTEXTS] <= m[_FORECASTS] == m["openanomaly_inference_contexts_total"]
        return len(seen) > 4 and len(set(seen[-4:])) == 1 and is_answered

    product.wait_until(is_quiet, "everything to be done")
    return product.metrics()


def go_on(product: Product, fleet: Fleet, with_forecast: float) -> None:
    """Push the steps after the move one by one: each is judged by all forecasts asked for before it."""
    product.wait_until(
        lambda: product.metrics()["openanomaly_window_series_with_forecast"] >= with_forecast,
        "the forecasts from before",
    )
    before = when_quiet(product)
    sent = 0
    for step in range(STEPS, STEPS + AFTER):
        sent += fleet.send(product, step, step + 1)
        # A sample counts once per window specification.
        is_done = functools.partial(_is_done, product, before, 2 * sent)
        wait_until(is_done, f"step {step}", 60, every_s=0.02)


def _is_done(product: Product, before: Mapping[str, float], sent: int) -> bool:
    now = product.metrics()
    taken = now[_IN] - before[_IN] >= sent
    asked, applied = (now[name] - before[name] for name in (_CONTEXTS, _APPLIED))
    return taken and asked == applied


Scores = dict[tuple[Labels, int], float]


def scores(recorder: Recorder) -> Scores:
    """Every score, by series and time; what was sent twice must have been the same."""
    out: Scores = {}
    for each in recorder.requests:
        for labels, time_ms, value in samples(each.body):
            assert out.setdefault((labels, time_ms), value) == value
    return out


def is_written(fleet: Fleet, recorder: Recorder) -> bool:
    """Whether the last score of each series that still sends has come."""
    last = STEPS + AFTER - 2
    newest: dict[Labels, int] = {}
    for labels, time_ms in scores(recorder):
        newest[labels] = max(time_ms, newest.get(labels, 0))
    steps = {"all": last, "totals": last, "slow": last - 1}  # one of two minutes may end a minute before
    done = [
        labels
        for labels, time_ms in newest.items()
        if time_ms >= fleet.scored_ms(steps[dict(labels)["pipeline"]])
    ]
    per_name = len(fleet.values) // 3
    return len(done) == (3 * per_name - 1) + per_name + (per_name - 1)


def in_order(recorder: Recorder) -> bool:
    """Whether the scores of each series came in the order of their steps."""
    newest: dict[Labels, int] = {}
    for each in recorder.requests:
        for labels, time_ms, _ in samples(each.body):
            if time_ms <= newest.get(labels, 0):
                return False
            newest[labels] = time_ms
    return True


def command(root: Path, source: str, target: str, settings: Mapping[str, Any], *flags: str) -> list[str]:
    file = root / "moving.yaml"
    file.write_text(json.dumps(settings))  # JSON is YAML
    words = [sys.executable, "-m", "openanomaly.cli", "migrate", source, target, "--config", str(file)]
    return [*words, *flags]


def migrate(
    root: Path, source: str, target: str, settings: Mapping[str, Any], *flags: str
) -> "subprocess.CompletedProcess[str]":
    words = command(root, source, target, settings, *flags)
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)


def count(done: "subprocess.CompletedProcess[str]", what: str) -> int:
    """What the last line says of `what`."""
    assert done.returncode == 0, done.stderr
    found = re.search(rf"(\d+) {what}", done.stdout)
    assert found, done.stdout
    return int(found[1])


def stop_if_running(product: Product) -> None:
    with contextlib.suppress(Exception):
        if product.process.is_running:
            product.stop()
