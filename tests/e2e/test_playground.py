"""The playground of the running product in a real browser, over a real database."""

import contextlib
import http.client
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver import ActionChains, Keys

from parts.browser import PHONE, Browser
from parts.debian import program
from parts.part import get
from parts.product import Product, openanomaly
from parts.victoria import VictoriaMetrics, victoria_metrics

STEPS, SPIKE = 700, 650
_DRAWINGS = """
    return [...document.querySelectorAll("[data-testid=stVegaLiteChart] svg")].map((e) => e.outerHTML)
"""
AUTH = {"username": "me", "password": "hunter2"}
DEFINED = [
    {"name": "load", "selector": "load", "model": "statistical", "score": {"direction": "above"}},
    {"name": "sums", "query": "sum by (job) (load)", "model": "statistical", "group_by": []},
]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VictoriaMetrics]:
    """Some hours of two hosts up to now; one of them has a spike."""
    rng = np.random.default_rng(2)
    first_ms = (int(time.time()) // 60 - STEPS) * 60_000
    lines = []
    for i in range(STEPS):
        for host in "ab":
            spike = 20 if (host, i) == ("b", SPIKE) else 0
            value = 5 + np.sin(i / 9) + 0.1 * rng.standard_normal() + spike
            lines.append(f'load{{host="{host}",job="web"}} {float(value)!r} {first_ms + i * 60_000}')
    with victoria_metrics(tmp_path_factory.mktemp("database")) as found:
        request = urllib.request.Request(f"{found.url}/api/v1/import/prometheus", "\n".join(lines).encode())
        urllib.request.urlopen(request, timeout=30).close()
        get(f"{found.url}/internal/force_flush")
        yield found


@pytest.fixture(scope="module")
def product(database: VictoriaMetrics, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    config = {"playground": {"auth": AUTH}, "pull": {"url": database.url}, "pipelines": DEFINED}
    root = tmp_path_factory.mktemp("playground")
    with openanomaly(root, command="playground", config=config) as running:
        yield running
        assert running.stop() == 0


@pytest.fixture
def page(product: Product, chromium: Browser) -> Browser:
    name, password = AUTH.values()
    chromium.look()
    chromium.open(f"http://{name}:{password}@{product.address}/")
    chromium.until_text("body", "What would the scores be?", 60)
    return chromium


def click(page: Browser, text: str) -> None:
    def found() -> bool:
        with contextlib.suppress(StaleElementReferenceException):  # drawn again meanwhile
            for each in page.all("button, [role=tab], [role=radio], summary"):
                if each.text.strip() == text and each.is_enabled():
                    each.click()
                    return True
        return False

    page.until(found)


def choose(page: Browser, label: str, option: str) -> None:
    """An option of a list by its label."""
    css = f'[role=combobox][aria-label*="{label}"]'

    def is_chosen() -> bool:
        with contextlib.suppress(StaleElementReferenceException, NoSuchElementException):
            if page.one(css).get_attribute("value") == option:
                return True
            options = page.all("[role=option]")
            if not options:
                page.one(css).click()
            for each in options:
                if each.text == option:
                    each.click()
                    break
        return False

    page.until(is_chosen)
    settled(page)


def settled(page: Browser) -> None:
    """Nothing is being worked on."""
    page.until(lambda: not page.all("[data-testid=stStatusWidget], [data-stale=true]"))


def figure(page: Browser, name: str) -> str:
    texts: list[str] = page.driver.execute_script(
        "return [...document.querySelectorAll('[data-testid=stMetric]')].map((e) => e.innerText)"
    )
    shown = [text.split("\n") for text in texts if text]  # nothing in tabs that are not open
    return {words[0]: words[-1] for words in shown}.get(name, "")


def charts(page: Browser) -> list[str]:
    """Their drawings, once all four are there and stay as they are."""
    found: list[list[str]] = [[], []]

    def are_there() -> bool:
        found[:] = [found[1], page.driver.execute_script(_DRAWINGS)]
        return len(found[1]) == 4 and found[0] == found[1]

    settled(page)
    page.until(are_there)
    return found[1]


def downloaded(page: Browser, folder: Path, name: str) -> Path:
    page.driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)}
    )
    click(page, name)
    page.until((folder / name).exists)
    return folder / name


def cli(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "openanomaly.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_spike_of_a_database_is_seen_and_its_pipeline_and_alerts_are_taken_away(
    page: Browser, database: VictoriaMetrics, tmp_path: Path
) -> None:
    page.complaints()
    click(page, "Database")
    choose(page, "Begin with", "load")
    choose(page, "Time", "1 day")
    page.until_text("body", database.url)
    click(page, "Try it")
    page.until_text("body", "forecasts in", 60)
    page.until(lambda: figure(page, "series with episodes") >= "1")
    # The worst series is shown first.
    page.until_text("[data-testid=stTabs]", 'load{host="b",job="web"}')
    charts(page)
    assert page.overflow() <= 0
    click(page, "Take away")
    definition = downloaded(page, tmp_path, "openanomaly.yaml")
    assert yaml.safe_load(definition.read_text())["pipelines"][0]["score"] == {"direction": "above"}
    done = cli("run", "--dry-run", "--config", str(definition))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["settings"]["pipelines"][0]["selector"] == "load"
    rules = downloaded(page, tmp_path, "alerts.yaml")
    checked = subprocess.run(
        [program("promtool"), "check", "rules", "--lint-fatal", rules],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    scores = downloaded(page, tmp_path, "scores.csv").read_text().splitlines()
    worst = max(scores[1:], key=lambda line: float(line.rsplit(",", 2)[1] or 0))
    assert 'host=""b""' in worst
    report = downloaded(page, tmp_path, "report.html").read_text()
    assert "<!doctype html>" in report
    assert page.complaints() == []


def test_a_query_is_asked_as_pull_mode_does(page: Browser) -> None:
    click(page, "Database")
    choose(page, "Begin with", "sums")
    choose(page, "Time", "1 day")
    click(page, "Try it")
    page.until_text("body", "forecasts in", 60)
    page.until_text("[data-testid=stTabs]", '{job="web"}')
    page.until(lambda: figure(page, "series with episodes") == "1")


def test_what_was_just_typed_is_tried(page: Browser) -> None:
    """The click follows the last key at once: the browser has not heard yet what became of it."""
    choose(page, "Model", "statistical")
    for tolerance in ("0.31", "0.47", "0.62"):
        settled(page)
        field = page.one('input[aria-label="Tolerance"]')
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(tolerance)
        click(page, "Try it")
        page.until_text("[data-testid=stTabs]", "Take away", 60)
        settled(page)
        click(page, "Take away")
        page.until_text("[data-testid=stCode]", f"tolerance: {tolerance}")
        assert page.one('input[aria-label="Tolerance"]').get_attribute("value") == tolerance


def test_a_query_that_is_none_is_told(page: Browser) -> None:
    click(page, "Database")
    page.until(lambda: page.all('input[aria-label="Query or selector"]'))
    field = page.one('input[aria-label="Query or selector"]')
    field.send_keys("sum(load")
    field.send_keys(Keys.ENTER)
    page.until(lambda: not any(b.text == "Try it" and b.is_enabled() for b in page.all("button")))
    page.until_text("[data-testid=stAlert]", "query")


def test_a_file_is_tried_in_its_own_steps(page: Browser, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    level = 10 + rng.uniform(-1, 1, 400)
    level[350] = 40
    rows = "\n".join(f"{1_767_225_600 + 600 * i},{float(v)!r}" for i, v in enumerate(level))
    (tmp_path / "level.csv").write_text(f"time,level\n{rows}\n")
    (tmp_path / "known.csv").write_text(f"timestamp\n{1_767_225_600 + 600 * 350}\n")
    click(page, "File")
    page.until(lambda: len(page.all("input[type=file]")) == 2)
    page.all("input[type=file]")[0].send_keys(str(tmp_path / "level.csv"))
    page.until_text("body", "1 series, 400 samples")
    page.all("input[type=file]")[1].send_keys(str(tmp_path / "known.csv"))
    page.until_text("body", "1 series, 400 samples, 1 known event")
    click(page, "Try it")
    page.until_text("body", "steps of 600 s", 60)
    page.until(lambda: figure(page, "events found") == "1 of 1")


def test_labels_and_names_of_files_are_shown_as_they_are(page: Browser, tmp_path: Path) -> None:
    odd = "*a* [x](https://evil.example/) `b` ![i](https://evil.example/i.png) $x$ :smile: <b>"
    rows = "\n".join(f'{1_767_225_600 + 60 * i},"{odd}",{i % 7}' for i in range(300))
    (tmp_path / "f_*x*_.csv").write_text(f"time,path,value\n{rows}\n")
    page.complaints()
    click(page, "File")
    page.until(lambda: page.all("input[type=file]"))
    page.all("input[type=file]")[0].send_keys(str(tmp_path / "f_*x*_.csv"))
    page.until_text("body", "1 series, 300 samples")
    choose(page, "Model", "statistical")
    click(page, "Try it")
    page.until_text("h3", "f_*x*_.csv", 60)
    page.until_text("[data-testid=stTabs]", odd)
    assert not page.all("[data-testid=stTabs] a[href], [data-testid=stTabs] img, [data-testid=stTabs] em")
    assert page.complaints() == []


def test_a_span_that_is_drawn_is_shown_step_by_step(page: Browser) -> None:
    choose(page, "Model", "statistical")
    click(page, "Try it")
    page.until_text("body", "forecasts in", 60)
    before = charts(page)
    first = page.one("[data-testid=stVegaLiteChart]")
    page.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", first)
    drag = ActionChains(page.driver).move_to_element_with_offset(first, -200, 0).click_and_hold()
    drag.move_by_offset(60, 0).move_by_offset(60, 0).release().perform()
    page.until(lambda: charts(page)[2:] != before[2:])
    settled(page)


def test_it_fits_on_a_phone(page: Browser) -> None:
    page.look(PHONE)
    page.until_text("body", "What would the scores be?")
    assert page.overflow() <= 0


def test_it_asks_nobody_else_for_anything(page: Browser, product: Product) -> None:
    page.hosts()
    page.open(product.url)
    page.until_text("body", "What would the scores be?", 60)
    assert page.hosts() == {product.address}


def test_strangers_see_nothing(product: Product) -> None:
    for path in ("/", "/_stcore/host-config", "/_stcore/stream"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(product.url + path, timeout=10)
        refused.value.close()
        assert refused.value.code == 401
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    with contextlib.closing(http.client.HTTPConnection(product.address, timeout=10)) as connection:
        connection.request("GET", "/_stcore/stream", headers=upgrade)
        assert connection.getresponse().status == 403
    assert b"openanomaly_playground_trials_total" in get(f"{product.url}/metrics")
