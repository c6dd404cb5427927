"""The status page of the running product: a pushed spike is there, on its page and in its API."""

import contextlib
import json
import urllib.error
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from e2e.pushed import Fleet
from e2e.sender import push, request
from openanomaly.core.series import Labels
from parts.browser import DESKTOP, PHONE, Browser
from parts.kafka import Cluster
from parts.part import get, wait_until
from parts.product import Product, openanomaly

WARMUP, STEPS, SPIKE = 48, 150, 140
API = "/api/v1/anomalies"


def config(broker: Mapping[str, Any]) -> dict[str, Any]:
    score = {"warmup": WARMUP, "block": 48}
    pipeline = {"name": "pushed", "selector": "test_load", "step_s": 1, "lateness_s": 1, "score": score}
    return {"broker": dict(broker), "sink": {"emit": "all"}, "pipelines": [pipeline]}


def spiked() -> Fleet:
    fleet = Fleet(hosts=8, steps=STEPS)
    fleet.values[3, SPIKE] += 50
    return fleet


def anomalies(product: Product, **parameters: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(get(f"{product.url}{API}?{urllib.parse.urlencode(parameters)}"))
    return found


def shows_all(product: Product, fleet: Fleet) -> bool:
    """Whether the page has the last step of every series."""
    summary = anomalies(product)["summary"]
    return bool(summary["scores"]["taken"] == len(fleet.names) * (STEPS - WARMUP))


def stands(product: Product) -> tuple[int, int] | None:
    """How many series are judged and how many warm up, as the page is told."""
    told = anomalies(product)["pipelines"]
    return (told[0]["judged"], told[0]["warming"]["series"]) if told and told[0]["warming"] else None


def later(fleet: Fleet, steps: int) -> dict[Labels, list[tuple[int, float]]]:
    """Steps behind the last one, with values of two waves before."""
    return {
        fleet.labels(name): [
            (fleet.sampled_ms(step), float(fleet.values[i, step - 48]))
            for step in range(fleet.steps, fleet.steps + steps)
        ]
        for i, name in enumerate(fleet.names)
    }


def check(fleet: Fleet, answer: dict[str, Any]) -> None:
    """What a page must say of the fleet after its last step."""
    [anomaly] = answer["anomalies"]
    assert anomaly["labels"] == dict(fleet.labels("host-3"))
    assert anomaly["state"] == "open"
    assert anomaly["since_ms"] == anomaly["peak"]["time_ms"] == fleet.scored_ms(SPIKE)
    assert anomaly["peak"]["value"] == pytest.approx(fleet.values[3, SPIKE], rel=1e-4)
    assert anomaly["peak"]["score"] > 1
    assert anomaly["peak"]["reason"]["code"].endswith("above")
    steps = anomaly["steps"]
    assert steps["time_ms"] == [fleet.scored_ms(step) for step in range(SPIKE - 23, STEPS)]
    assert steps["is_open"] == [False] * 23 + [True] * (STEPS - SPIKE)
    assert answer["summary"]["series"] == 8
    assert answer["groups"] == [
        {"label": "job", "name": "pushed", "series": 8, "anomalous": 1, "share": 0.125, "without_forecast": 0}
    ]
    assert answer["forecasts"]["without"] == 0


@pytest.mark.timeout(240)
def test_a_pushed_spike_is_on_the_page_and_in_the_api(tmp_path: Path, chromium: Browser) -> None:
    fleet = spiked()
    broker = f"embedded://{tmp_path / 'broker'}"
    with openanomaly(tmp_path, "--broker", broker, config=config({"partitions": 4})) as product:
        chromium.look()
        chromium.complaints()
        chromium.open(f"{product.url}/")
        chromium.until_text("h1", "Waiting for the first samples")
        chromium.until_text("#empty pre", f"url: {product.write_url}")

        push(product.write_url, request(fleet.samples(0, WARMUP - 8)))
        chromium.until_text("#empty", "8 series are warming up")
        push(product.write_url, request(fleet.samples(WARMUP - 8, STEPS)))
        chromium.until_text("h1", "1 series is anomalous")
        product.wait_until(lambda: shows_all(product, fleet), "every score is shown")
        check(fleet, anomalies(product))
        assert anomalies(product, match='test_load{host!="host-3"}')["anomalies"] == []
        with pytest.raises(urllib.error.HTTPError, match="400"):
            anomalies(product, match="{")

        chromium.until_text(".card .facts", "Now")
        assert "host=host-3" in chromium.text(".labels")
        for size in (DESKTOP, PHONE):
            for theme in ("light", "dark"):
                chromium.look(size, theme)  # type: ignore[arg-type]
                chromium.until(lambda: len(chromium.all(".chart .value")) == 1)
                assert len(chromium.all(".chart .odd")) >= 1
                assert chromium.overflow() == 0
                assert chromium.faint() == []
        chromium.until_text("#health-body", "Forecasts by")
        assert chromium.complaints() == []

        metrics = product.metrics()
        assert metrics["openanomaly_status_series_anomalous"] == 1
        outcomes = sum(
            value for name, value in metrics.items() if name.startswith("openanomaly_status_scores_outcome")
        )
        assert metrics["openanomaly_status_scores_total"] == outcomes == 8 * (STEPS - WARMUP)
        assert metrics["openanomaly_window_scores_without_forecast_total"] <= 8 * (STEPS - WARMUP)
        product.stop()
        chromium.until_text("#notices", "Connection lost")
        product.start()
        chromium.until(lambda: "Connection lost" not in chromium.text("#notices"), 60)

        # Windows went on from their state: nobody warms up again, and the next step is judged.
        product.wait_until(lambda: stands(product) == (8, 0), "windows have told how series stand")
        chromium.until(lambda: chromium.text("h1") not in ("", "Getting to know your series"))
        assert "warming up" not in chromium.text("main")
        if not anomalies(product)["summary"]["scores"]["in"]:  # else what no sink had released came again
            chromium.until_text("h1", "Waiting for the next step")
            chromium.until_text("#empty", "8 series are known")
        push(product.write_url, request(later(fleet, 20)))
        last_ms = fleet.scored_ms(STEPS + 19)
        product.wait_until(lambda: anomalies(product)["summary"]["newest_ms"] == last_ms, "all is judged")
        answer = anomalies(product)
        assert answer["summary"]["series"] == 8
        is_odd = answer["summary"]["anomalous"]
        chromium.until_text("h1", "1 series is anomalous" if is_odd else "Everything is normal")
        assert chromium.text("#notices") == ""
    chromium.open("about:blank")


@pytest.mark.timeout(240)
def test_every_sink_shows_all_partitions_of_kafka(tmp_path: Path, kafka: Cluster, topic_prefix: str) -> None:
    fleet = spiked()
    settings = config({"partitions": 4, "topic_prefix": topic_prefix, "session_timeout_s": 6})
    with contextlib.ExitStack() as stack:

        def start(role: str, folder: str) -> Product:
            (tmp_path / folder).mkdir()
            return stack.enter_context(
                openanomaly(tmp_path / folder, "--broker", kafka.url, command=role, config=settings)
            )

        roles = {role: start(role, role) for role in ("receiver", "window", "inference")}
        sinks = [start("sink", f"sink-{i}") for i in range(2)]
        assert anomalies(sinks[0])["watched"]["write_path"] is None
        push(roles["receiver"].write_url, request(fleet.samples(0, STEPS)))
        for sink in sinks:
            sink.wait_until(lambda sink=sink: shows_all(sink, fleet), "every score is shown")
            check(fleet, anomalies(sink))
        # Both write some of the scores, and each shows all of them.
        wait_until(
            lambda: (
                sum(sink.metrics()["openanomaly_sink_scores_total"] for sink in sinks) == 8 * (STEPS - WARMUP)
            ),
            "every score is at a sink",
        )
        # One that starts now has the same soon.
        late = start("sink", "late")
        late.wait_until(lambda: shows_all(late, fleet), "every score is shown")
        check(fleet, anomalies(late))
        with pytest.raises(urllib.error.HTTPError, match="404"):
            anomalies(roles["window"])
