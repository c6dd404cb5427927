"""What a running process tells of itself: when it is ready, and numbers that add up."""

import json
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from e2e.pushed import Fleet
from e2e.sender import push, request
from parts import debian
from parts.part import get, wait_until
from parts.product import Product, openanomaly
from parts.victoria import VictoriaMetrics

SERIES, STEPS, WARMUP = 2000, 24, 8
CONFIG = {
    "broker": {"partitions": 4},
    "sink": {"emit": "all", "series": ["anomaly_score", "yhat_upper"]},
    "pipelines": [
        {
            "name": "pushed",
            "selector": "test_load",
            "step_s": 1,
            "lateness_s": 1,
            "min_context": 4,
            "score": {"warmup": WARMUP, "block": 12},
        }
    ],
}


def ready(url: str) -> tuple[int, dict[str, str]] | None:
    """Status and reasons of the readiness probe; None while nobody listens."""
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=5) as answer:
            return answer.status, json.load(answer)["reasons"]
    except urllib.error.HTTPError as exc:
        return exc.code, json.load(exc)["reasons"]
    except OSError:
        return None


def until_ready(product: Product) -> list[tuple[int, dict[str, str]]]:
    """Every answer of the probe from the first one to that which says ready."""
    answers: list[tuple[int, dict[str, str]]] = []

    def is_ready() -> bool:
        answer = ready(product.url)
        if answer is not None:
            answers.append(answer)
        return answer is not None and answer[0] == 200

    product.process.start()
    wait_until(is_ready, "readiness", 60, every_s=0.005)
    return answers


def windows(product: Product) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(get(f"{product.url}/api/v1/admin/status"))["window"]
    return found


def test_what_to_do_next_is_logged(tmp_path: Path) -> None:
    with openanomaly(tmp_path, "--broker", f"embedded://{tmp_path / 'broker'}") as product:
        pass
    log = product.process.log.read_text()
    assert f"push remote-write to {product.write_url}" in log
    assert "scores are counted and not written: set sink.url or --write-to" in log
    assert "nobody else can read" not in log


def test_a_role_alone_on_a_broker_of_one_process_is_warned(tmp_path: Path) -> None:
    url = f"embedded://{tmp_path / 'broker'}"
    with openanomaly(tmp_path, "--broker", url, command="inference") as product:
        pass
    log = product.process.log.read_text()
    assert f"nobody else can read {url}: run all roles with `openanomaly run`" in log
    assert "push remote-write" not in log


@pytest.mark.timeout(180)
def test_after_a_crash_it_is_not_ready_before_every_series_is_there_again(tmp_path: Path) -> None:
    fleet = Fleet(hosts=SERIES, steps=STEPS)
    product = Product(tmp_path, "--broker", f"embedded://{tmp_path / 'broker'}", config=CONFIG)
    try:
        product.start()
        push(product.write_url, request(fleet.samples(0, STEPS)))
        judged = SERIES * (STEPS - WARMUP - 1)
        product.wait_until(lambda: product.total("openanomaly_window_scores_total") >= judged, "steps judged")
        product.kill()

        first, *_, last = until_ready(product)
        assert first[0] == 503
        assert first[1]["window"] == "windows are recovering"
        assert first[1]["sink"] == "the broker is not connected"
        assert last == (200, {})
        found = windows(product)
        assert (found["recovered"], found["series"]) == (True, SERIES)
        # The receiver's part does not wait for that of the windows.
        push(product.write_url, request(fleet.samples(STEPS - 1, STEPS)))
    finally:
        product.stop()


@pytest.mark.timeout(180)
def test_metrics_are_valid_and_add_up_in_every_room(
    tmp_path: Path, victoria_metrics: VictoriaMetrics
) -> None:
    fleet = Fleet(hosts=20, steps=100)
    flags = ("--broker", f"embedded://{tmp_path / 'broker'}", "--write-to", victoria_metrics.write_url)
    product = Product(tmp_path, *flags, config=CONFIG)
    try:
        product.start()
        other = {(("__name__", "other"), ("host", "a")): [(fleet.sampled_ms(0), 1.0)]}
        push(product.write_url, request(fleet.samples(0, 60)))
        push(product.write_url, request(fleet.samples(50, 100)))  # ten steps come twice
        push(product.write_url, request(other))

        def total(name: str) -> float:
            return product.total(f"openanomaly_{name}")

        emitted = 20 * (100 - WARMUP)
        shared = 100 - WARMUP  # there is one group, which has a share as soon as its series have scores
        product.wait_until(
            lambda: total("sink_scores_written_total") >= emitted + shared, "scores and shares of every step"
        )
        product.wait_until(lambda: total("lag_records") == 0, "nothing unread")
        # What was read may still wait for the model.
        product.wait_until(
            lambda: (
                total("inference_contexts_total")
                == total("inference_forecasts_total") + total("inference_dropped_total")
            ),
            "forecasts",
        )
        text = get(f"{product.url}/metrics")
        found = product.metrics()
    finally:
        product.stop()
    done = subprocess.run(
        [debian.program("promtool"), "check", "metrics"], input=text, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")

    def of(name: str) -> float:
        return sum(value for key, value in found.items() if key.split("{")[0] == f"openanomaly_{name}")

    assert of("receiver_samples_total") == 20 * 110 + 1
    assert found['openanomaly_receiver_samples_dropped_total{reason="unselected"}'] == 1
    assert of("receiver_samples_published_total") == 20 * 110
    assert of("window_samples_total") == 20 * 110
    assert of("window_samples_dropped_total") == 20 * 10
    assert of("window_samples_accepted_total") == 20 * 100
    assert of("window_steps_closed_total") == of("window_scores_total") + of("window_steps_in_warmup_total")
    assert of("window_scores_emitted_total") == emitted
    assert of("groups") == 1
    assert of("groups_shares_total") == of("groups_shares_taken_total") == shared
    assert of("groups_scores_emitted_total") == shared
    assert of("sink_scores_total") == of("sink_scores_written_total") == emitted + shared
    assert of("sink_scores_dropped_total") == 0
    assert of("window_contexts_total") + of("groups_contexts_total") == of("inference_contexts_total") > 0
    assert of("inference_contexts_total") == of("inference_forecasts_total") + of("inference_dropped_total")
    assert of("sink_batch_samples_sum") == of("sink_samples_written_total") > emitted
    assert of("score_latency_seconds_count") == of("sink_queue_wait_seconds_count") > 0
    assert of("inference_queue_wait_seconds_count") > 0
    assert of("receiver_publish_seconds_count") == 2
    assert of("records_expired_total") == 0
