"""The report of a backtest as a browser shows it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from openanomaly import cli
from parts.browser import DESKTOP, PHONE, Browser, Theme, browser

START_S, STEP_S, STEPS = 1_767_225_600, 300, 3000
_LONGEST = "return Math.max(...[...document.querySelectorAll(arguments[0])].map((p) => p.getTotalLength()))"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(1)
    wave = np.sin(2 * np.pi * np.arange(STEPS) / 288)
    odd, calm = 10 + 3 * wave + 0.3 * rng.standard_normal(STEPS), 50 + rng.standard_normal(STEPS)
    odd[2500:2510] += 12
    lines = ["timestamp,<b>odd</b> & {x=1},calm"]
    there = [i for i in range(STEPS) if not 1500 <= i < 1560]
    lines += [f"{START_S + STEP_S * i},{odd[i]},{calm[i]}" for i in there]
    (root / "in.csv").write_text("\n".join(lines))
    labels = root / "labels.csv"
    labels.write_text(f"start,end\n{START_S + STEP_S * 2500},{START_S + STEP_S * 2509}\n")
    out = root / "report.html"
    arguments = ["backtest", str(root / "in.csv"), "--model", "statistical", "--report", str(out)]
    assert cli.main([*arguments, "--labels", str(labels)]) == 0
    return out


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("chromium")) as found:
        yield found


@pytest.fixture
def page(report: Path, chromium: Browser) -> Browser:
    chromium.open("about:blank")
    chromium.complaints()  # of the browser's own
    chromium.hosts()
    chromium.open(report.as_uri())
    return chromium


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_it_is_readable(page: Browser, theme: Theme, size: tuple[int, int]) -> None:
    page.look(size, theme)
    assert page.overflow() == 0
    assert page.faint() == []
    ground = page.driver.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(244, 245, 247)" if theme == "light" else "rgb(14, 17, 22)")
    assert page.complaints() == []


def test_it_needs_nothing_else(page: Browser, report: Path) -> None:
    assert page.hosts() <= {""}
    text = report.read_text()
    assert "<script" not in text
    assert "http" not in text
    assert "url(" not in text


def test_it_draws_every_series_the_worst_first(page: Browser) -> None:
    page.look()
    assert [h.text for h in page.all("h2")] == ["<b>odd</b> & {x=1}", "calm", "Series"]
    assert page.all("h2 b") == []
    charts = page.all("svg.chart")
    assert len(charts) == 4, "all of it and the neighbourhood of the highest score, each"
    for chart in charts:
        assert chart.size["width"] > 800
        assert chart.size["height"] > 150
    for kind in ("value", "band", "median", "bar", "bar.high"):
        assert page.driver.execute_script(_LONGEST, f"section:first-of-type .{kind}") > 100, kind
    whole = page.all("section:first-of-type figure:first-of-type .value")
    assert len(whole) == 2, "nothing is drawn in the gap"
    assert page.all("section:first-of-type .known")
    assert page.all("section:first-of-type .episode")


def test_it_says_what_was_found(page: Browser) -> None:
    assert "events found 1 of 2" in page.text("dl.figures"), "both series are labelled, one is odd"
    assert "1 of 1 events found" in page.text("section:first-of-type p")
    assert "than it was in memory" in page.text("section:first-of-type table")
    assert "calm" in page.text("section:last-of-type table")
