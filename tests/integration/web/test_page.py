"""The status page in a real browser, in every state that it can be in."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from openanomaly.core.anomalies.board import Board, Limits
from openanomaly.core.frames import ScoreFlag, ScoreFrame
from openanomaly.core.scoring.reason import Reason
from openanomaly.core.series import Labels
from openanomaly.settings import AuthSettings, WebSettings
from openanomaly.web.server import Health, WebServer
from openanomaly.web.status import StatusPage
from parts.browser import DESKTOP, PHONE, Browser, Theme
from scores import MARKER, NOW_MS
from unit.core.anomalies.boards import END, OPEN, START, STEP_MS, board, census, give, hosts, series, step

EVIL: Labels = series(
    "evil",
    instance='<script>alert("instance")</script>',
    job="\"><img src=x onerror=alert('job')>",
    path="/" + "very-long-" * 400,
    quote="'\"`\\ \u202e\u2028 &amp; ${1}",
)
LOOKS: list[tuple[tuple[int, int], Theme]] = [
    (size, theme) for size in (DESKTOP, PHONE) for theme in ("light", "dark")
]


@dataclass
class Facts:
    """What the rooms of a process say; the sizes of a small one that is well."""

    watched: dict[str, Any] = field(default_factory=dict)
    health: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)

    def __call__(self) -> dict[str, Any]:
        pipeline = {"name": "default", "selector": "{}", "step_ms": 60_000, "warmup": 144, "alert_score": 1.0}
        scores = {
            "is_connected": True,
            "since_ms": NOW_MS,
            "unread": 0,
            "behind_s": 0.0,
            "taken": 9,
            "rejected": 0,
            "missed": 0,
        }
        watched = {
            "series": 40, "max_series": 100, "steps_closed": 9000, "steps_scored": 4000, "samples": 9000,
            "samples_published": 9000, "pipelines": [pipeline], "write_path": "/api/v1/write",
            "needs_credentials": False,
        }  # fmt: skip
        health = {
            "roles": ["receiver", "window", "inference", "sink"],
            "is_ready": True,
            "reasons": {},
            "lag": [{"role": "window", "topic": "samples", "unread": 3, "oldest_s": 45.0}],
            "target": {"is_set": True, "is_up": True},
            "models": {"auto": "nano"},
            "emit": "all",
            "scores": {**scores, **self.scores},
        }
        return {"watched": {**watched, **self.watched}, "health": {**health, **self.health}}


class Site:
    """The page of a board, on a port of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.server: WebServer | None = None
        self.port = 0

    def serve(
        self, found: Board, facts: Facts, auth: AuthSettings | None = None, after_ms: int = 10_000
    ) -> str:
        """From now on with this board, so long after its newest step; the address stays."""
        url: str = self.do(self._serve(found, facts, auth or AuthSettings(), after_ms))
        return url

    async def _serve(self, found: Board, facts: Facts, auth: AuthSettings, after_ms: int) -> str:
        await self._stop()
        settings = WebSettings(listen=f"127.0.0.1:{self.port}", auth=auth)
        self.server = WebServer(settings, CollectorRegistry(), Health())

        def clock() -> float:
            return ((found.clock_ms or NOW_MS) + after_ms) / 1000

        StatusPage(found, lambda: ["default"], facts, clock).register(self.server)
        await self.server.start()
        self.port = self.server.port or 0
        return f"{self.server.url}/"

    def stop(self) -> None:
        self.do(self._stop())

    async def _stop(self) -> None:
        if self.server is not None:
            await self.server.stop()
            self.server = None

    def do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    found = Site()
    thread = threading.Thread(target=found.loop.run_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        with contextlib.suppress(Exception):
            found.stop()
        found.loop.call_soon_threadsafe(found.loop.stop)
        thread.join()
        found.loop.close()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Browser]:
    """The browser; whatever a test did, the page must not have complained."""
    chromium.look()
    chromium.complaints()
    yield chromium
    assert chromium.complaints() == []
    chromium.open("about:blank")


def waves(fleet: list[Labels], steps: int = 60, first_odd: int = 45) -> list[ScoreFrame]:
    """The first series leaves its band for good; the others go on."""
    out = []
    for n in range(steps):
        frame = step(fleet, n, {0: int(START if n == first_odd else OPEN)} if n >= first_odd else {})
        value = 10 + np.sin(n / 4 + np.arange(len(fleet)))
        value[0] += 8 if n >= first_odd else 0
        band = np.tile([10.0, 8.5, 11.5], (len(fleet), 1))
        reason = np.full(len(fleet), Reason.VALUE_ABOVE, np.uint8)
        out.append(replace(frame, value=value, expected=band, reason=reason))
    return out


@pytest.mark.parametrize(("size", "theme"), LOOKS)
def test_an_anomalous_series_is_shown_with_its_chart(
    page: Browser, site: Site, size: tuple[int, int], theme: Theme
) -> None:
    page.look(size, theme)
    page.open(site.serve(board(*waves(hosts(6))), Facts()))
    page.until_text("h1", "1 series is anomalous")
    assert page.text(".card h3") == "load"
    assert page.text(".labels") == "instance=host-0 job=node"
    assert "Higher than it was in memory" in page.text(".card")
    assert page.text("#groups-body").startswith("node 1 of 6 17 %")
    [chart] = page.all(".chart svg")
    assert chart.get_attribute("role") == "img"
    assert "worst value 17.03" in (chart.get_attribute("aria-label") or "")
    # 23 steps before it and 15 in it: one line, one band, a bar for each step, a dot for each alarm.
    assert [len(page.all(f".chart {x}")) for x in (".value", ".band", ".bar", ".odd", ".episode")] == [
        1, 1, 38, 15, 1
    ]  # fmt: skip
    assert chart.size["width"] > 200
    assert page.overflow() == 0
    assert page.faint() == []


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
@pytest.mark.parametrize(
    "scale", [1e-300, -1.23456e-5, -12345.678, 9.87654321e8, 1.5e300, 0.0, np.nan, np.inf]
)
def test_numbers_of_any_size_fit(page: Browser, site: Site, scale: float, size: tuple[int, int]) -> None:
    with np.errstate(invalid="ignore"):
        frames = [
            replace(
                frame,
                value=frame.value * scale,
                expected=np.sort(frame.expected * scale, axis=1)[:, [1, 0, 2]],
            )
            for frame in waves(hosts(3))
        ]
    page.look(size)
    page.open(site.serve(board(*frames), Facts()))
    page.until_text(".card .facts", "Worst")
    page.until(lambda: len(page.all(".chart .bar")) == 38)
    assert page.overflow() == 0
    assert "NaN" not in page.driver.page_source
    assert "Infinity" not in page.driver.page_source


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_labels_are_text_whatever_they_hold(page: Browser, site: Site, size: tuple[int, int]) -> None:
    page.look(size)
    page.open(site.serve(board(*waves([EVIL, *hosts(2)])), Facts()))
    page.until_text("h1", "1 series is anomalous")
    shown = page.driver.execute_script("return document.querySelector('.labels').textContent")
    for name, value in EVIL[1:]:
        assert f"{name}={value}" in shown
    assert page.driver.execute_script("return document.querySelectorAll('main img, main script').length") == 0
    page.one("#groups-body button").click()
    page.until_text("#filtered", "onerror=alert('job')")
    assert len(page.all(".card")) == 1
    assert page.overflow() == 0
    assert page.complaints() == []  # an alert would have been one, and so would a refused script


def test_ten_thousand_at_once_are_a_page_that_says_how_many_there_are(page: Browser, site: Site) -> None:
    many = hosts(10_000)
    flags = dict.fromkeys(range(10_000), int(START))
    found = Board(Limits())
    found.take(step(many, 0, flags), NOW_MS)
    page.open(site.serve(found, Facts()))
    page.until_text("h1", "10,000 series are anomalous")
    assert len(page.all(".card")) == 20
    assert "20 of 1,000 listed. 9,000 more series are anomalous" in page.text("#rest")
    page.one("#more").click()
    page.until(lambda: len(page.all(".card")) == 40)


EMPTY = [
    (Facts({"series": 0, "samples": 0, "samples_published": 0, "steps_closed": 0, "steps_scored": 0}),
     "Waiting for the first samples", ["Nothing has been pushed yet", "url: http://127.0.0.1:PORT/api/v1/write",
                                       "144 steps of 1 min: 2 h 24 min"]),
    (Facts({"series": 0, "samples": 0, "samples_published": 0, "steps_scored": 0, "needs_credentials": True}),
     "Waiting for the first samples", ["and the credentials of web.auth"]),
    (Facts({"series": 0, "samples": 50, "samples_published": 0, "steps_scored": 0}),
     "Getting to know your series", ["No pipeline wants what is pushed", "50 samples came", "default: {}"]),
    (Facts({"series": None, "samples": None, "steps_scored": None, "steps_closed": None, "write_path": None}),
     "Getting to know your series", ["No score has come yet", "http://RECEIVER:9201/api/v1/write"]),
    (Facts(), "Everything is normal", ["All 40 series are normal"]),
]  # fmt: skip


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
@pytest.mark.parametrize(("facts", "title", "words"), EMPTY)
def test_an_empty_page_says_why(
    page: Browser, site: Site, facts: Facts, title: str, words: list[str], size: tuple[int, int]
) -> None:
    page.look(size)
    page.open(site.serve(board(), facts))
    page.until_text("h1", title)
    for each in words:
        page.until_text("#empty", each.replace("PORT", str(site.port)))
    assert page.overflow() == 0
    assert page.faint() == []


ALONE = Facts(
    {"series": None, "samples": None, "steps_scored": None, "steps_closed": None, "write_path": None}
)
STARTED = Facts({"series": 40, "samples": 0, "samples_published": 0, "steps_closed": 0, "steps_scored": 0})


@pytest.mark.parametrize("facts", [ALONE, STARTED, Facts()], ids=["a sink alone", "after a start", "run"])
@pytest.mark.parametrize("emits_all", [True, False])
@pytest.mark.parametrize(
    ("told", "title", "words"),
    [
        ({"judged": 40, "closed": 40}, "Everything is normal", "All 40 series are normal"),
        ({"judged": 30, "closed": 40, "steps_left": 5}, "Everything is normal", "10 more series are warming"),
        ({"judged": 0, "closed": 40, "steps_left": 132}, "Getting to know your series",
         "40 series are warming up\nFirst scores in about 132 steps of 1 min: 2 h 12 min"),
    ],
)  # fmt: skip
def test_how_series_stand_is_as_windows_tell(
    page: Browser, site: Site, facts: Facts, emits_all: bool, told: dict[str, int], title: str, words: str
) -> None:
    if facts == Facts() and not told["judged"]:
        facts = STARTED
    page.open(site.serve(board(census(0, emits_all=emits_all, **told)), facts))
    page.until_text("h1", title)
    page.until(lambda: words.replace("\n", " ") in page.text("#empty").replace("\n", " "))


def test_after_a_restart_series_that_were_judged_are_not_warming_up(page: Browser, site: Site) -> None:
    found = board(census(0, judged=40, closed=0))
    page.open(site.serve(found, STARTED, after_ms=180 * STEP_MS))
    page.until_text("h1", "Waiting for the next step")
    page.until_text("#empty", "40 series are known")


@pytest.mark.parametrize(
    ("facts", "notice"),
    [
        (Facts(scores={"is_connected": False}), "Scores cannot be read: the broker does not answer since"),
        (Facts(scores={"unread": 500, "behind_s": 75.2}),
         "Catching up: what you see is 1 min 15 s behind. 500 records of scores are not read yet."),
        (Facts(health={"lag": [{"role": "window", "topic": "samples", "unread": 7, "oldest_s": 400.0}]}),
         "Late, windows, samples: 7 records are not read yet, the oldest of 6 min 40 s ago."),
        (Facts(health={"is_ready": False, "reasons": {"sink": "the target does not take scores"}}),
         "Not ready, sink: the target does not take scores."),
    ],
)  # fmt: skip
def test_what_is_wrong_with_us_is_told(page: Browser, site: Site, facts: Facts, notice: str) -> None:
    page.open(site.serve(board(*waves(hosts(3))), facts))
    page.until_text("#notices", notice)
    assert page.faint() == []


@pytest.mark.parametrize("flags", [{}, {1: START}], ids=["normal", "anomalous"])
@pytest.mark.parametrize(
    ("facts", "after_ms", "is_old"),
    [
        (Facts(), 4 * STEP_MS, False),
        (Facts(), 180 * STEP_MS, True),
        (Facts(scores={"unread": 9, "behind_s": 3.0}), 10_000, False),
        (Facts(scores={"unread": 9, "behind_s": 60.0}), 10_000, True),
        (Facts(scores={"is_connected": False}), 10_000, True),
        (Facts(health={"lag": [{"role": "window", "topic": "samples", "unread": 7, "oldest_s": 400.0}]}),
         10_000, True),
    ],
)  # fmt: skip
def test_what_was_is_not_told_as_what_is(
    page: Browser, site: Site, facts: Facts, after_ms: int, is_old: bool, flags: dict[int, int]
) -> None:
    page.open(site.serve(board(step(hosts(3), 0, flags)), facts, after_ms=after_ms))
    if flags:
        page.until_text("h1", "1 series was anomalous" if is_old else "1 series is anomalous")
    else:
        page.until_text("h1", "What is now is not known" if is_old else "Everything is normal")
        assert page.one("h1").get_attribute("class") == ("" if is_old else "good")
    assert (page.text("#notices") != "") == is_old
    assert page.faint() == []


def test_a_pipeline_that_is_silent_is_told_by_its_own_steps(page: Browser, site: Site) -> None:
    seldom = replace(step(hosts(2), 0, pipeline="seldom"), step_ms=3_600_000)
    pipelines = [
        {"name": name, "selector": "{}", "step_ms": 60_000, "warmup": 144, "alert_score": 1.0}
        for name in ("default", "seldom")
    ]
    found = board(seldom, step(hosts(3), 0))
    page.open(site.serve(found, Facts({"pipelines": pipelines}), after_ms=3 * 3_600_000))
    page.until_text("#notices", "No score of default has come for 3 h: what you see is of")
    assert "seldom" not in page.text("#notices")


def test_health_shows_lag_target_and_model(page: Browser, site: Site) -> None:
    page.open(site.serve(board(), Facts(health={"target": {"is_set": True, "is_up": False}})))
    page.until_text("#health-body", "does not take scores")
    assert "Forecasts by nano (auto)" in page.text("#health-body")
    assert page.text("#health-body tbody") == "windows, samples 3 45 s"


def test_series_judged_without_a_forecast_are_told(page: Browser, site: Site) -> None:
    fleet = hosts(4)
    blind = int(ScoreFlag.NO_FORECAST)
    page.open(site.serve(board(step(fleet, 0, {0: blind, 1: blind | int(START)})), Facts()))
    page.until_text("#notices", "50 % of series are judged without a forecast")
    assert "Judged without forecast 50 % 2 series" in page.text("#tiles")
    assert "no forecast" in page.text(".card")
    assert len(page.all(".chart .blind")) == 1


def test_series_and_forecasts_are_counted_where_only_episodes_come(page: Browser, site: Site) -> None:
    odd = step(hosts(1), 0, {0: int(START | ScoreFlag.NO_FORECAST)})
    page.open(site.serve(board(odd, census(0, emits_all=False, unforecast=4)), ALONE))
    page.until_text("#notices", "10 % of series are judged without a forecast")
    assert "Judged without forecast 10 % 4 series" in page.text("#tiles")
    assert "Anomalous now 1 of 40" in page.text("#tiles")
    assert "1 anomaly" in page.text("#groups-body")


def test_steps_that_did_not_come_are_gaps(page: Browser, site: Site) -> None:
    odd = hosts(1)
    frames = [step(odd, n, {0: f}) for n, f in ((0, START), (1, OPEN), (2, MARKER), (9, START), (10, OPEN))]
    page.open(site.serve(board(*frames), Facts({"series": 40_000})))
    page.until_text("h1", "1 series is anomalous")
    assert [len(page.all(f".chart {x}")) for x in (".value", ".band", ".episode", ".bar")] == [2, 2, 2, 5]
    assert "gaps are steps that were normal" in page.text(".card")
    assert "1 anomaly" in page.text("#groups-body")
    assert "%" not in page.text("#groups-body")


def test_what_is_over_is_told_apart(page: Browser, site: Site) -> None:
    fleet = hosts(2)
    found = board(step(fleet, 0, {0: START, 1: START}), step(fleet, 1, {0: OPEN, 1: END}))
    page.open(site.serve(found, Facts()))
    page.until_text(".card .chip", "Anomalous Ended")
    page.one("#filter input[value=ended]").click()
    page.until(lambda: page.text(".card .chip") == "Ended")
    assert "state=ended" in page.driver.current_url
    page.driver.refresh()
    page.until(lambda: page.text(".card .chip") == "Ended")


@pytest.mark.parametrize(
    ("flags", "headline"),
    [
        ({}, "2 series went away while anomalous"),
        ({0: OPEN}, "1 series is anomalous, and 2 went away while anomalous"),
    ],
)
def test_who_went_away_while_anomalous_is_in_the_headline(
    page: Browser, site: Site, flags: dict[int, int], headline: str
) -> None:
    fleet = hosts(6)
    found = board(step(fleet, 0, {0: START, 4: START, 5: START}))
    for n in range(1, 10):
        give(found, step(fleet[:4], n, flags))
    page.open(site.serve(found, Facts()))
    page.until_text("h1", headline)
    assert page.one("h1").get_attribute("class") == ("bad" if flags else "")
    assert page.text(".card .chip").split(" No more steps")[0] == ("Anomalous" if flags else "No more steps")


def test_a_selector_chooses_and_a_wrong_one_is_explained(page: Browser, site: Site) -> None:
    fleet = hosts(3)
    page.open(site.serve(board(step(fleet, 0, dict.fromkeys(range(3), int(START)))), Facts()))
    page.until(lambda: len(page.all(".card")) == 3)
    page.one("#match").send_keys('load{instance="host-1"}')
    page.until(lambda: page.text(".labels") == "instance=host-1 job=node")
    page.complaints()
    page.one("#match").send_keys("{")
    page.until_text("#match-error", "parameter match: cannot parse selector")
    assert len(page.all(".card")) == 1
    assert any("400" in complaint for complaint in page.complaints())


def test_groups_filter_by_keyboard(page: Browser, site: Site) -> None:
    fleet = [*hosts(2, "api"), *hosts(2, "node")]
    page.open(site.serve(board(step(fleet, 0, dict.fromkeys(range(4), int(START)))), Facts()))
    page.until(lambda: len(page.all(".card")) == 4)
    page.driver.execute_script("document.querySelector('[data-group=node]').focus()")
    page.driver.switch_to.active_element.send_keys("\ue007")
    page.until(lambda: len(page.all(".card")) == 2)
    assert page.driver.switch_to.active_element.get_attribute("data-group") == "node"
    assert page.one("[data-group=node]").get_attribute("aria-pressed") == "true"
    page.driver.switch_to.active_element.send_keys("\ue007")
    page.until(lambda: len(page.all(".card")) == 4)


def test_new_steps_come_by_themselves(page: Browser, site: Site) -> None:
    fleet = hosts(4)
    found = board(step(fleet, 0))
    page.open(site.serve(found, Facts()))
    page.until_text("h1", "Everything is normal")
    site.loop.call_soon_threadsafe(lambda: give(found, step(fleet, 1, {2: START})))
    page.until_text("h1", "1 series is anomalous")
    page.until_text(".labels", "host-2")


def test_a_lost_connection_is_told_and_comes_back(page: Browser, site: Site) -> None:
    found = board(*waves(hosts(3)))
    page.open(site.serve(found, Facts()))
    page.until_text("h1", "1 series is anomalous")
    site.stop()
    page.until_text("#notices", "Connection lost: no answer from the server. What you see is from")
    assert "Trying again." in page.text("#notices")
    assert len(page.all(".card")) == 1
    assert page.one("body").get_attribute("class") == "old"
    site.serve(found, Facts())
    page.until(lambda: "Connection lost" not in page.text("#notices"))
    assert page.one("body").get_attribute("class") == ""
    assert any("ERR_CONNECTION_REFUSED" in complaint for complaint in page.complaints())


def test_a_page_behind_a_password_works(page: Browser, site: Site) -> None:
    auth = AuthSettings(username="me", password=SecretStr("pass"))
    url = site.serve(board(*waves(hosts(3))), Facts(), auth)
    page.open(url.replace("//", "//me:pass@"))
    page.until_text("h1", "1 series is anomalous")
    assert all("401" in complaint for complaint in page.complaints())
    page.open("about:blank")
