"""Pipelines that are defined over the API, in either store, run in a process that nobody restarts."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parts import mongo
from parts.part import get
from parts.product import Product, openanomaly


@pytest.fixture(params=["folder", "mongodb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, mongo.Server | None]]:
    """Address of a store, and its server if it has one."""
    if request.param == "folder":
        (tmp_path / "pipelines").mkdir()
        yield str(tmp_path / "pipelines"), None
    else:
        with mongo.server(tmp_path) as server:
            yield server.url("openanomaly"), server


def call(api: Product, method: str, path: str, content: Any = None, **headers: str) -> tuple[Any, str]:
    """The answer and its ETag."""
    body = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(f"{api.url}/api/v1/{path}", body, method=method)
    for name, value in {"Content-Type": "application/json", **headers}.items():
        request.add_header(name.replace("_", "-"), value)
    with urllib.request.urlopen(request) as answer:
        said = answer.read()
        return (json.loads(said) if said else None), answer.headers.get("ETag", "")


def running(product: Product) -> dict[str, float]:
    """Steps of the pipelines that run, by name."""
    return {p["name"]: p["step_s"] for p in json.loads(get(f"{product.url}/api/v1/admin/pipelines"))}


@pytest.mark.timeout(240)
def test_what_is_created_changed_and_deleted_over_the_api_runs(
    tmp_path: Path, store: tuple[str, mongo.Server | None]
) -> None:
    url, server = store
    settings = {"store": {"url": url, "poll_s": 0.2}}
    with openanomaly(tmp_path, command="api", config=settings) as api:
        call(api, "POST", "pipelines", {"name": "first", "selector": "up"})
        broker = {"url": f"embedded://{tmp_path / 'broker'}", "partitions": 2}
        with openanomaly(tmp_path, config={**settings, "broker": broker}) as product:
            pids = product.worker_pids()
            assert running(product) == {"first": 60}

            call(api, "POST", "pipelines", {"name": "second", "selector": "down", "step_s": 30})
            product.wait_until(lambda: running(product) == {"first": 60, "second": 30}, "the new one")
            _, etag = call(api, "GET", "pipelines/second")
            call(api, "PUT", "pipelines/second", {"selector": "down", "step_s": 15}, If_Match=etag)
            product.wait_until(lambda: running(product) == {"first": 60, "second": 15}, "the change")
            call(api, "DELETE", "pipelines/first", If_Match="*")
            product.wait_until(lambda: running(product) == {"second": 15}, "the deletion")

            if server is not None:  # a store that is away leaves what runs as it is
                server.stop()
                product.wait_until(lambda: "store" in product.process.log.read_text().lower(), "the outage")
                assert running(product) == {"second": 15}
            assert product.worker_pids() == pids
            assert json.loads(get(f"{product.url}/-/ready"))["status"] == "ok"
