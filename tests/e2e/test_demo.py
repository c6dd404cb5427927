"""`openanomaly demo` as users run it: through the whole product, judged by what its sink wrote."""

import json
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from parts.browser import PHONE, Browser
from parts.part import HOST, Process, free_port, get, wait_until

FAULTS = ("spike", "shift", "drift", "drop to zero", "frozen value")
COPIES = 3


class Demo:
    """A demo whose temporary files are below a folder of its own."""

    def __init__(self, root: Path, *words: str) -> None:
        self.temporary = root / "tmp"
        self.temporary.mkdir()
        self.url = f"http://{HOST}:{free_port()}"
        command = [sys.executable, "-m", "openanomaly.cli", "demo", "--speed", "100", *words]
        command += ["--port", self.url.rpartition(":")[2], "--no-browser"]
        self.process = Process(command, root / "demo.log", {"TMPDIR": str(self.temporary)})
        self.process.start()

    @property
    def said(self) -> str:
        return self.process.log.read_text()

    def worker(self) -> int:
        """Process id of the product."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        assert len(children) == 1
        return int(children[0])

    def wait_until(self, is_true: Callable[[], object], what: str) -> None:
        def true_or_ended() -> object:
            done = is_true()
            assert done or self.process.is_running, f"the demo ended on its own:\n{self.said}"
            return done

        wait_until(true_or_ended, what, 150)

    def end(self) -> int:
        """The exit status, once it ends on its own."""
        assert self.process.popen is not None
        return self.process.popen.wait(170)

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def lines(said: str, fault: str) -> list[str]:
    """Rows of the table about a fault."""
    return re.findall(rf"^{fault}  .*$", said, re.MULTILINE)


def false_alarms(said: str) -> tuple[int, int]:
    """How many there were, and the limit."""
    found = re.search(r"^False alarms: (\d+) in \d+ days of series, limit (\d+)", said, re.MULTILINE)
    assert found is not None, said
    return int(found[1]), int(found[2])


@pytest.mark.timeout(300)
def test_once_finds_every_fault_and_ends_with_0(tmp_path: Path) -> None:
    demo = Demo(tmp_path, "--once")
    status = demo.end()
    said = demo.said
    assert status == 0, said
    for fault in FAULTS:
        assert len(lines(said, fault)) == COPIES
        assert all(re.search(r"  \d+ steps?, ", line) for line in lines(said, fault)), said
    assert len(lines(said, "counter reset")) == COPIES
    assert len(lines(said, "rolling restart")) == 1
    loud = [line for kind in ("counter reset", "rolling restart") for line in lines(said, kind)]
    assert sum("quiet, as it must be" in line for line in loud) >= COPIES - 1, said
    count, limit = false_alarms(said)
    assert count <= limit
    assert f"PASSED: all {len(FAULTS) * COPIES} faults were found." in said
    shown = re.search(rf"^ *([\d.]+) s +the status page shows it: {demo.url}/$", said, re.MULTILINE)
    assert shown is not None, said
    shares = re.findall(r"([\d.]+)% of them with a forecast", said)
    assert float(shares[0]) >= 99
    assert list(demo.temporary.iterdir()) == []


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("score", "words"),
    [
        ({"scale": [1e-6, 1e-6]}, "NOT FOUND: it alarmed before"),
        ({"min_deviation": 1e30}, "NOT FOUND"),
    ],
    ids=["always", "never"],
)
def test_a_detector_that_alarms_always_or_never_ends_with_1(
    tmp_path: Path, score: dict[str, object], words: str
) -> None:
    pipeline = {"name": "demo", "step_s": 300, "score": score}
    demo = Demo(tmp_path, "--once", "--days", "1", "--set", f"pipelines={json.dumps([pipeline])}")
    status = demo.end()
    said = demo.said
    assert status == 1, said
    missed = [line for fault in FAULTS for line in lines(said, fault) if re.search(rf"  {words}  ", line)]
    assert len(missed) == len(FAULTS) * COPIES, said
    count, limit = false_alarms(said)
    assert (count > limit) if "before" in words else (count == 0)
    assert f"FAILED: {len(missed)} faults were not found" in said


@pytest.mark.timeout(300)
def test_a_browser_sees_an_anomalous_series_with_its_chart(tmp_path: Path, chromium: Browser) -> None:
    demo = Demo(tmp_path, "--days", "2")
    demo.wait_until(lambda: f"the status page shows it: {demo.url}/" in demo.said, "an anomaly on the page")
    chromium.look()
    chromium.complaints()
    chromium.open(f"{demo.url}/")
    chromium.until(lambda: chromium.all(".card .chart .value"))
    chromium.until(lambda: chromium.all(".card .chart .odd"))
    chromium.until_text("h1", "anomalous")
    chromium.until_text("#health-body", "chronos-bolt-nano")
    assert chromium.overflow() == 0
    chromium.look(PHONE, "dark")
    assert chromium.overflow() == 0
    assert chromium.complaints() == []
    chromium.open("about:blank")
    demo.signal(signal.SIGTERM)
    demo.end()
    assert list(demo.temporary.iterdir()) == []


@pytest.mark.timeout(300)
def test_without_once_it_goes_on_until_ctrl_c_and_leaves_nothing_behind(tmp_path: Path) -> None:
    demo = Demo(tmp_path, "--days", "1")
    demo.wait_until(lambda: demo.said.count("faults begin") == 2, "a second round")
    assert re.search("^(PASSED|FAILED): ", demo.said, re.MULTILINE)
    demo.wait_until(lambda: b"OpenAnomaly" in get(demo.url), "the status page")
    worker = demo.worker()
    demo.signal(signal.SIGINT)
    assert demo.end() == 0, demo.said
    assert "Traceback" not in demo.said
    assert is_gone(worker)
    assert list(demo.temporary.iterdir()) == []


@pytest.mark.timeout(120)
def test_ctrl_c_in_the_middle_of_once_is_no_success(tmp_path: Path) -> None:
    demo = Demo(tmp_path, "--once")
    demo.wait_until(lambda: "days of history" in demo.said, "history")
    worker = demo.worker()
    demo.signal(signal.SIGINT)
    assert demo.end() == 130, demo.said
    assert is_gone(worker)
    assert list(demo.temporary.iterdir()) == []


@pytest.mark.timeout(120)
def test_a_product_that_crashes_is_an_error_with_its_log(tmp_path: Path) -> None:
    demo = Demo(tmp_path, "--once")
    demo.wait_until(lambda: "days of history" in demo.said, "history")
    os.kill(demo.worker(), signal.SIGKILL)
    assert demo.end() == 1
    assert "Traceback" not in demo.said
    (log,) = demo.temporary.iterdir()
    assert f"openanomaly: the product ended with status -9; its log is {log} and ends with\n" in demo.said
    assert "listening on" in demo.said
    assert "listening on" in log.read_text()


@pytest.mark.timeout(120)
def test_a_demo_that_is_killed_takes_the_product_with_it(tmp_path: Path) -> None:
    demo = Demo(tmp_path, "--once")
    demo.wait_until(lambda: "days of history" in demo.said, "history")
    worker = demo.worker()
    demo.signal(signal.SIGKILL)
    demo.end()
    wait_until(lambda: is_gone(worker), "the end of the product", 30)
