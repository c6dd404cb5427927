"""`emit`: every score while there are few series, and episodes that end with a marker beyond."""

import math
from pathlib import Path
from typing import Any

import pytest

from e2e.pushed import Fleet, scores
from e2e.sender import push, request
from parts.part import wait_until
from parts.product import openanomaly
from parts.victoria import VictoriaMetrics

WARMUP, QUIET = 48, 6
STEPS, SPIKE = 150, 120


def config(**sink: Any) -> dict[str, Any]:
    score = {"warmup": WARMUP, "block": 48, "quiet": QUIET}
    pipeline = {"name": "pushed", "selector": "test_load", "step_s": 1, "lateness_s": 1, "score": score}
    return {"broker": {"partitions": 2}, "sink": sink, "pipelines": [pipeline]}


def spiked() -> Fleet:
    fleet = Fleet(hosts=8, steps=STEPS)
    fleet.values[3, SPIKE] += 50
    return fleet


def episodes(found: dict[int, float]) -> list[list[int]]:
    """The times of each episode that has ended, its marker (NaN) the last of them."""
    ended: list[list[int]] = []
    inside: list[int] = []
    for at in sorted(found):
        inside.append(at)
        if math.isnan(found[at]):
            ended.append(inside)
            inside = []
    return ended


@pytest.mark.timeout(180)
def test_beyond_the_limit_only_episodes_are_written_and_each_ends_with_a_marker(
    tmp_path: Path, victoria_metrics: VictoriaMetrics
) -> None:
    fleet = spiked()
    flags = ("--broker", f"embedded://{tmp_path / 'broker'}", "--write-to", victoria_metrics.write_url)
    with openanomaly(tmp_path, *flags, config=config(emit_all_limit=7)) as product:
        push(product.write_url, request(fleet.samples(0, 1)))
        chosen = "emitting episodes' scores (8 series in 2 of 2 partitions, 8 in all; sink.emit=auto, "
        chosen += "sink.emit_all_limit=7)"
        product.wait_until(lambda: chosen in product.process.tail(), "the choice is logged")
        push(product.write_url, request(fleet.samples(1, STEPS)))
        product.wait_until(
            lambda: product.total("openanomaly_window_steps_closed_total") == 8 * STEPS, "steps closed"
        )

        def has_ended() -> bool:
            found = scores(victoria_metrics).get("host-3", {})
            return any(math.isnan(score) for score in found.values())

        wait_until(has_ended, "the marker", 60)
        found = scores(victoria_metrics)
    assert list(found) == ["host-3"]
    # Whether what follows a spike alarms once more depends on the moment of the forecast: the rules
    # hold for every episode that has ended.
    ended = episodes(found["host-3"])
    assert ended[0][0] == fleet.scored_ms(SPIKE)
    for *inside, last in ended:
        assert found["host-3"][inside[0]] > 1
        # Nothing is left out between, and the marker stands `quiet` steps after the last alarm.
        assert [*inside, last] == list(range(inside[0], last + 1, 1000))
        alarms = [at for at in inside if found["host-3"][at] > 1]
        assert last == alarms[-1] + QUIET * 1000


@pytest.mark.timeout(180)
def test_up_to_the_limit_every_score_is_written(tmp_path: Path, victoria_metrics: VictoriaMetrics) -> None:
    fleet = spiked()
    flags = ("--broker", f"embedded://{tmp_path / 'broker'}", "--write-to", victoria_metrics.write_url)
    with openanomaly(tmp_path, *flags, config=config(emit_all_limit=8)) as product:
        push(product.write_url, request(fleet.samples(0, STEPS)))
        last_ms = fleet.scored_ms(STEPS - 1)
        wait_until(
            lambda: len(found := scores(victoria_metrics)) == 8 and all(last_ms in s for s in found.values()),
            "scores of the last step",
            60,
        )
        found = scores(victoria_metrics)
        assert "emitting all scores" in product.process.log.read_text()
    every = [fleet.scored_ms(step) for step in range(WARMUP, STEPS)]
    assert all(sorted(samples) == every for samples in found.values())
    assert not any(math.isnan(score) for samples in found.values() for score in samples.values())
