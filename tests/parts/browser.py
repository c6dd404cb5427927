"""A real Chromium, driven by chromedriver. Nothing is downloaded: both are Debian's."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from parts.debian import program

Theme = Literal["light", "dark"]
DESKTOP, PHONE = (1360, 900), (360, 740)
_OVERFLOW = "return document.scrollingElement.scrollWidth - document.documentElement.clientWidth"
_CONTRAST = (Path(__file__).parent / "contrast.js").read_text()


class Browser:
    """One window, and what it complains of."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def open(self, url: str) -> None:
        self.driver.get(url)

    def look(self, size: tuple[int, int] = DESKTOP, theme: Theme = "light") -> None:
        """Be a screen of this size, whose owner likes this theme."""
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == PHONE}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": theme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def all(self, css: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def one(self, css: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def text(self, css: str) -> str:
        """The text that is there, shown or scrolled away; one line."""
        words: str = self.driver.execute_script(
            "return [...document.querySelectorAll(arguments[0])].map((e) => e.innerText).join(' ')", css
        )
        return " ".join(words.split())

    def until(self, is_true: Callable[[], object], timeout_s: float = 30.0) -> None:
        WebDriverWait(self.driver, timeout_s, poll_frequency=0.1).until(lambda _: is_true())

    def until_text(self, css: str, words: str, timeout_s: float = 30.0) -> None:
        try:
            self.until(lambda: words in self.text(css), timeout_s)
        except Exception as exc:
            raise AssertionError(f"{words!r} is not in {css}: {self.text(css)!r}") from exc

    def overflow(self) -> int:
        """Pixels that the page is wider than its window."""
        pixels: int = self.driver.execute_script(_OVERFLOW)
        return pixels

    def faint(self) -> list[str]:
        """Texts whose contrast with what is behind them is below 4.5 (WCAG 2, AA)."""
        found: list[str] = self.driver.execute_script(_CONTRAST)
        return found

    def complaints(self) -> list[str]:
        """What was written to the console, and requests that failed, since the last call."""
        out = [entry["message"] for entry in self.driver.get_log("browser")]  # type: ignore[no-untyped-call]
        for entry in self.driver.get_log("performance"):  # type: ignore[no-untyped-call]
            message: dict[str, Any] = json.loads(entry["message"])["message"]
            parameters = message["params"]
            if message["method"] == "Network.loadingFailed" and not parameters.get("canceled"):
                out.append(f"{parameters['requestId']}: {parameters['errorText']}")
            if message["method"] == "Network.responseReceived" and parameters["response"]["status"] >= 400:
                out.append(f"{parameters['response']['url']}: {parameters['response']['status']}")
        return out

    def hosts(self) -> set[str]:
        """Hosts that were asked for anything since the last look at what failed or was asked."""
        found: set[str] = set()
        for entry in self.driver.get_log("performance"):  # type: ignore[no-untyped-call]
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                found.add(message["params"]["request"]["url"].split("/")[2])
        return found


@contextlib.contextmanager
def browser(root: Path) -> Iterator[Browser]:
    """A running browser with a profile of its own."""
    options = ChromeOptions()
    options.binary_location = program("chromium")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for flag in (
        "--headless=new",
        "--no-sandbox",  # as root there is none
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        "--disable-background-networking",
        f"--user-data-dir={root / 'chromium'}",
    ):
        options.add_argument(flag)
    service = Service(program("chromedriver"), log_output=str(root / "chromedriver.log"))
    driver = Chrome(options=options, service=service)
    try:
        yield Browser(driver)
    finally:
        driver.quit()
