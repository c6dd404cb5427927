"""The supervisor with real processes: when a worker is started again, and how it is stopped."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SUPERVISE = """
import sys
from openanomaly.supervisor import Supervisor
folder, stop_s, pause_s, *command = sys.argv[1:]
sys.exit(Supervisor(command, backoff_s=(float(pause_s),), stop_s=float(stop_s)).run())
"""
WORKER = """
import os, signal, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
starts = len(list(folder.glob("start-*")))
def told(number, frame):
    (folder / f"told-{signal.Signals(number).name}").touch()
    sys.exit(0)
BODY
(folder / f"start-{starts}-{os.getpid()}").touch()
THEN
"""
WAIT = "while True: time.sleep(0.02)"


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a supervisor of a worker that is a piece of Python."""
    started: list[subprocess.Popen[str]] = []

    def start(body: str, then: str, stop_s: float = 10, pause_s: float = 0.01) -> subprocess.Popen[str]:
        worker = WORKER.replace("BODY", body).replace("THEN", then)
        words = [str(tmp_path), str(stop_s), str(pause_s), sys.executable, "-c", worker, str(tmp_path)]
        process = subprocess.Popen(
            [sys.executable, "-c", SUPERVISE, *words],
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
    for pid in pids(tmp_path):
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)


def pids(folder: Path) -> list[int]:
    """Process ids of the workers, in the order of their starts."""
    names = [path.name.split("-") for path in folder.glob("start-*")]
    return [int(pid) for _, _, pid in sorted(names, key=lambda n: int(n[1]))]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def until(condition: Callable[[], object]) -> None:
    end_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end_s, "nothing happened"
        time.sleep(0.01)


def test_a_crashed_worker_is_started_again_until_it_ends_well(tmp_path: Path, supervise) -> None:
    process = supervise("", "sys.exit(0 if starts == 2 else 1)")
    errors = process.communicate(timeout=30)[1]
    assert process.returncode == 0
    assert len(pids(tmp_path)) == 3
    assert errors.count("the worker ended with status 1; starting it again") == 2


def test_a_killed_worker_is_started_again(tmp_path: Path, supervise) -> None:
    process = supervise("", WAIT)
    until(lambda: len(pids(tmp_path)) == 1)
    os.kill(pids(tmp_path)[0], signal.SIGKILL)
    until(lambda: len(pids(tmp_path)) == 2)
    process.terminate()
    assert process.wait(30) == 0
    assert not is_alive(pids(tmp_path)[1])


def test_a_configuration_that_is_wrong_is_not_tried_again(tmp_path: Path, supervise) -> None:
    process = supervise("", "sys.exit(2)")
    assert process.wait(30) == 2
    assert len(pids(tmp_path)) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_is_passed_on_and_waited_for(tmp_path: Path, supervise, number: signal.Signals) -> None:
    process = supervise("signal.signal(signal.SIGTERM, told)", WAIT)
    until(lambda: pids(tmp_path))
    process.send_signal(number)
    assert process.wait(30) == 0
    assert (tmp_path / "told-SIGTERM").exists()
    assert not is_alive(pids(tmp_path)[0])


def test_a_worker_that_fails_while_stopping_is_told_apart(tmp_path: Path, supervise) -> None:
    process = supervise("signal.signal(signal.SIGTERM, lambda *_: os._exit(7))", WAIT)
    until(lambda: pids(tmp_path))
    process.terminate()
    assert process.wait(30) == 1
    assert len(pids(tmp_path)) == 1


def test_a_worker_that_does_not_stop_is_killed(tmp_path: Path, supervise) -> None:
    process = supervise("signal.signal(signal.SIGTERM, signal.SIG_IGN)", WAIT, stop_s=0.2)
    until(lambda: pids(tmp_path))
    process.terminate()
    errors = process.communicate(timeout=30)[1]
    assert process.returncode == 1
    assert "did not stop within" in errors
    assert not is_alive(pids(tmp_path)[0])


def test_a_stop_ends_the_wait_before_the_next_start(tmp_path: Path, supervise) -> None:
    process = supervise("", "sys.exit(1)", pause_s=3600)
    assert process.stderr is not None
    assert "starting it again in 3600.0 s" in process.stderr.readline()
    process.terminate()
    assert process.wait(30) == 0
    assert len(pids(tmp_path)) == 1
