"""Shares of groups whose series are in all partitions: each step has one that is right, whatever crashes."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from e2e.pushed import RANGE, Fleet, Scores
from e2e.test_pushed import WARMUP, Pushing, broker, config, wait_for_last_step
from parts.kafka import Cluster
from parts.product import Product, openanomaly
from parts.victoria import VictoriaMetrics

__all__ = ["broker"]

QUIET = 24
HOSTS, STEPS, ODD = 40, 300, 260


def fleet_with_an_incident() -> Fleet:
    """Half of the hosts leave their range at the step `ODD`."""
    fleet = Fleet(HOSTS, STEPS)
    fleet.values[: HOSTS // 2, ODD] = 50 + 3 * RANGE
    return fleet


def shares_of(found: Scores, fleet: Fleet) -> dict[int, float]:
    """By step's end: which share of the hosts that have a score is in an episode, from the scores alone."""
    out = {}
    for step in range(fleet.steps):
        now_ms = fleet.scored_ms(step)
        since = [fleet.scored_ms(s) for s in range(step - QUIET + 1, step + 1)]
        there = [samples for samples in found.values() if now_ms in samples]
        if there:
            odd = [any(samples.get(ms, 0) > 1 for ms in since) for samples in there]
            out[now_ms] = sum(odd) / len(there)
    return out


def rates(store: VictoriaMetrics, query: str = "anomaly_rate") -> dict[int, float]:
    found = store.export(query)
    assert len(found) <= 1, found
    for labels, samples in found.items():
        expected = {"__name__": query.partition("{")[0], "pipeline": "pushed", "job": "pushed"}
        assert {k: v for k, v in labels if k != "for"} == expected
        return samples
    return {}


def check(product: Product, store: VictoriaMetrics, fleet: Fleet) -> None:
    """Shares and their scores agree with the scores of the hosts."""
    found = wait_for_last_step(product, store, fleet)
    last_ms = fleet.scored_ms(fleet.steps - 1)
    product.wait_until(lambda: last_ms in rates(store), "the share of the last step")
    # Nothing follows the last steps that would close them: they wait for their lateness on the wall clock.
    shares = shares_of(found, fleet)
    missing = [(ms - fleet.start_ms) // 1000 - 1 for ms in shares if ms not in rates(store)]
    assert not missing
    assert rates(store) == pytest.approx(shares)
    assert shares[fleet.scored_ms(ODD)] >= 0.5
    judged = rates(store, 'anomaly_score{for="anomaly_rate"}')
    assert set(judged) == set(list(shares)[WARMUP:])
    assert judged[fleet.scored_ms(ODD)] > 1


@pytest.mark.timeout(240)
@pytest.mark.parametrize("is_killed", [False, True], ids=["undisturbed", "killed"])
def test_every_step_has_the_share_that_the_scores_of_its_series_make(
    tmp_path: Path, victoria_metrics: VictoriaMetrics, broker: tuple[str, Mapping[str, Any]], is_killed: bool
) -> None:
    fleet = fleet_with_an_incident()
    url, settings = broker
    flags = ("--broker", url, "--write-to", victoria_metrics.write_url)
    with openanomaly(tmp_path, *flags, config=config(settings)) as product:
        pushing = Pushing(product, fleet)
        pushing.start()
        for steps in (150, 262) if is_killed else ():
            pushing.wait_until_taken(steps)
            product.kill()
            product.start()
        pushing.finish()
        check(product, victoria_metrics, fleet)
        assert product.total("openanomaly_groups_left_out_total") == 0 or is_killed


@pytest.mark.timeout(240)
def test_two_window_workers_make_one_share(
    tmp_path: Path, victoria_metrics: VictoriaMetrics, kafka: Cluster, topic_prefix: str
) -> None:
    fleet = fleet_with_an_incident()
    settings = {"partitions": 4, "topic_prefix": topic_prefix, "session_timeout_s": 6}
    flags = ("--broker", kafka.url, "--write-to", victoria_metrics.write_url)
    with contextlib.ExitStack() as stack:
        roles = [
            stack.enter_context(openanomaly(tmp_path, *flags, command=role, config=config(settings)))
            for role in ("receiver", "window", "window", "inference", "sink")
        ]
        pushing = Pushing(roles[0], fleet)
        pushing.start()
        pushing.finish()
        check(roles[-1], victoria_metrics, fleet)
        assert all(r.total("openanomaly_window_samples_accepted_total") > 0 for r in roles[1:3])
