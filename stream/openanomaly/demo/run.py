"""`openanomaly demo`: a simulated fleet through the whole product, and whether its faults were found.

The product runs as a process of its own. The fleet's requests go to its receiver over HTTP, its sink
writes scores to a target here; between them is nothing but what users have. Time is accelerated by
sending the past: a step has the timestamps of its five minutes, and is sent when the product has
taken in those before.
"""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
import webbrowser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from openanomaly.demo import report, sending
from openanomaly.demo.client import Client
from openanomaly.demo.faults import Fault, Samples, World, deployments, plan
from openanomaly.demo.fleet import DAY, Fleet
from openanomaly.demo.product import HOST, DemoError, Product, free_port
from openanomaly.demo.report import tell
from openanomaly.demo.target import Target
from openanomaly.demo.verdict import ALERT, LATE, Verdict, judge
from openanomaly.demo.writing import Writer
from openanomaly.exits import CRASH

FAILED = 1
INTERRUPTED = 130

_CHUNK = 8
"""Steps of history sent at once. Forecasts are then up to 23 steps old when they are used, not up to 16."""
_HALVES = 2
"""Of the fleet, sent in turn: windows take in one while the engine is at work for the other."""
_BETWEEN = 96
"""Steps between two rounds."""
_HEADROOM = 60 * DAY * 200
"""Steps of all series before the time of the fleet has caught up with ours: changelogs of 0.9 GB."""
_STALLED_S = 60.0
_NOTICED_S = 5.0
_TOLD_LINES = 15
_FORECAST_SHARE = 0.95


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says.

    Attributes:
        days: of history before the first fault. Series of few days know little of what is normal to them.
        speed: steps a second while there are faults.
        flags: settings of the product, by their dotted names.
    """

    series: int = 200
    seed: int = 1
    port: int = 9201
    once: bool = False
    browser: bool = True
    days: int = 5
    speed: float = 10.0
    flags: Mapping[str, str] = field(default_factory=dict)


def main(options: Options) -> int:
    """Run the demo; its exit status.

    Raises:
        ConfigError: the port is taken, or a setting is wrong.
    """
    folder = Path(tempfile.mkdtemp(prefix="openanomaly-demo-"))
    try:
        return asyncio.run(_run(options, folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def send_past(url: str, series: int, seed: int, days: int) -> int:
    """Send the fleet's past to an installation that runs; the exit status."""
    try:
        asyncio.run(sending.send(url, series, seed, days))
    except DemoError as exc:
        report.complain(str(exc))
        return CRASH
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


async def _run(options: Options, folder: Path) -> int:
    demo = Demo(options, folder)
    playing = asyncio.create_task(demo.play())
    is_stopped = False

    def stop() -> None:
        nonlocal is_stopped
        if not is_stopped:  # once: what ends takes a moment to do so, and must not be left half-way
            is_stopped = True
            playing.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        return await playing
    except asyncio.CancelledError:
        if not is_stopped:
            raise
        return INTERRUPTED if options.once else 0
    except DemoError as exc:
        report.complain(f"{exc}{demo.last_words()}")
        return CRASH


class Demo:
    """The fleet, the product, and the target of its scores."""

    def __init__(self, options: Options, folder: Path) -> None:
        self._options = options
        self._began_s = time.monotonic()
        self._fleet = Fleet(options.series, options.seed)
        self._writer = Writer(self._fleet.labels)
        self._product = Product(folder, free_port(options.port), options.flags)
        self._step_ms = self._product.settings.pipelines[0].step_ms
        self._world = World(self._fleet, self._step_ms / 1000)
        self._history = options.days * DAY
        self._had = np.zeros(options.series, np.int64)
        self._faults = plan(self._fleet, self._history, options.seed, self._had)
        ahead = _end(self._faults) + 2 + (0 if options.once else _HEADROOM // options.series)
        self._start_ms = (round(time.time() * 1000) // self._step_ms - ahead) * self._step_ms
        self._target = Target(self._fleet.labels, self._step_ms, self._start_ms)
        self._pushed = 0
        self._told: set[Fault] = set()
        self._reasons: dict[int, str] = {}
        self._is_shown = False

    async def play(self) -> int:
        """From start to end; the exit status.

        Raises:
            DemoError: the product did not do its part.
        """
        runner = await self._target.serve(HOST)
        tasks: list[asyncio.Task[Any]] = []
        try:
            self._tell("starting the product")
            await self._product.start(self._target.url)
            playing, ended = asyncio.create_task(self._play()), asyncio.create_task(self._product.ended())
            tasks += playing, ended
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if playing.done() and isinstance(playing.exception(), aiohttp.ClientError):
                await asyncio.wait([ended], timeout=_NOTICED_S)  # why it no longer answers
            if ended.done():
                ended.result()
            return await playing
        except aiohttp.ClientError as exc:
            raise DemoError(f"the product does not answer: {exc}") from exc
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._product.stop()
            await runner.cleanup()

    def last_words(self) -> str:
        """The end of the product's log, and where the whole of it is when the folder is gone."""
        if not self._product.log.exists():
            return ""
        number, kept = tempfile.mkstemp(prefix="openanomaly-demo-", suffix=".log")
        os.close(number)
        shutil.copyfile(self._product.log, kept)
        lines = self._product.log.read_text("utf-8", "replace").splitlines()[-_TOLD_LINES:]
        return "\n    ".join([f"; its log is {kept} and ends with", *lines])

    async def _play(self) -> int:
        async with aiohttp.ClientSession() as session:
            await self._product.ready(session)
            self._client = Client(session, self._product.url)
            model = await self._client.model()
            self._tell(f"ready: {self._product.url}/ (model {model})")
            await self._play_history()
            while True:
                verdict = await self._round()
                print("\n" + report.table(self._fleet, self._faults, verdict, self._reasons))
                passed = self._sum_up(verdict, model)
                if self._options.once:
                    return 0 if passed else FAILED
                await self._pause()

    # -- what is played ------------------------------------------------------------------------

    async def _play_history(self) -> None:
        days = self._options.days
        self._tell(
            f"{days} days of history of {self._options.series} series, {report.minutes(1)} a step, "
            "as fast as they are taken in"
        )
        day = 0
        past = deployments(self._fleet, days, self._options.seed)
        while self._fleet.step < self._history:
            samples = self._world.take(_CHUNK, past)
            for half in range(_HALVES):
                await self._push(samples, slice(half, None, _HALVES))
            if self._fleet.step // DAY > day:
                day = self._fleet.step // DAY
                self._tell(f"  day {day} of {days}")

    async def _round(self) -> Verdict:
        """Faults, and what was found of them."""
        first, end = self._fleet.step, _end(self._faults)
        self._target.keep(first, end - first)
        self._told.clear()
        self._reasons.clear()
        self._tell(f"faults begin; {self._options.speed:g} steps a second from here on")
        # One step more: the last one is closed by the step after it.
        await self._live(end + 1 - first, self._faults)
        await self._scored(end - 1)
        await self._tell_found()
        return judge(self._target.kept, first, self._faults)

    async def _pause(self) -> None:
        """Quiet between two rounds, and the plan of the next one."""
        self._tell("quiet; the next round of faults follows. Ctrl-C ends the demo")
        self._target.keep(self._fleet.step, _BETWEEN)
        await self._live(_BETWEEN, ())
        self._faults = plan(self._fleet, self._fleet.step, self._options.seed, self._had)

    async def _live(self, steps: int, faults: Sequence[Fault]) -> None:
        """Steps at a pace that people can follow, and never ahead of the wall clock."""
        next_s = time.monotonic()
        for _ in range(steps):
            await self._push(self._world.take(1, faults), slice(None))
            await self._client.forecast()
            await self._tell_found()
            next_s = max(next_s + 1 / self._options.speed, time.monotonic())
            await asyncio.sleep(next_s - time.monotonic())
            await self._no_future()

    async def _no_future(self) -> None:
        """Wait until the next step is not ahead of the wall clock."""
        wait_s = self._time_ms(self._fleet.step) / 1000 - time.time()
        if wait_s > 1:
            self._tell(f"the fleet's time has caught up with ours; the next step is due in {wait_s:.0f} s")
        await asyncio.sleep(max(0.0, wait_s))

    def _time_ms(self, step: int) -> int:
        """When a step's sample is taken: in the middle of the step."""
        return self._start_ms + step * self._step_ms + self._step_ms // 2

    async def _push(self, samples: Samples, series: slice) -> None:
        """Send what some series have at the newest steps.

        Only when their last forecasts have come: no step may be judged by older ones than it would be in
        real time, or what is normal would be learned from errors that are not those of later.
        """
        first = self._fleet.step - len(samples.value)
        time_ms = np.array([self._time_ms(first + k) for k in range(len(samples.value))])
        count = int(samples.is_there[:, series].sum())
        await self._client.push(self._writer.requests(samples, time_ms, series), count)
        self._pushed += count

    async def _scored(self, step: int) -> None:
        """Wait until every series has its score of `step`."""
        since_s, before = time.monotonic(), -1
        while (self._target.last < step).any():
            if self._target.scores != before:
                since_s, before = time.monotonic(), self._target.scores
            elif time.monotonic() - since_s > _STALLED_S:
                late = int((self._target.last < step).sum())
                raise DemoError(f"no scores of {late} series in {_STALLED_S:.0f} s")
            await asyncio.sleep(0.05)

    # -- what people are told ------------------------------------------------------------------

    def _tell(self, text: str) -> None:
        tell(time.monotonic() - self._began_s, text)

    async def _tell_found(self) -> None:
        """Say which faults have alarmed since the last time; show the page when it has one of them."""
        target = self._target
        for fault in self._faults:
            if fault in self._told or not fault.kind.must_alarm:
                continue
            scores = target.kept[fault.start - target.first : fault.stop - target.first + LATE, fault.series]
            at = np.flatnonzero(scores > ALERT)
            if at.size:
                self._told.add(fault)
                self._tell(
                    f"  {fault.kind.name}: {self._fleet.name(fault.series)} scores {scores[at[0]]:.1f} "
                    f"after {report.steps(int(at[0]) + 1)}"
                )
        if len(self._reasons) < len(self._told):
            await self._ask_why()

    async def _ask_why(self) -> None:
        """Take from the status page why the faults that were told of score high, as soon as it knows."""
        since_ms = self._time_ms(self._target.first)
        for i in {fault.series for fault in self._told} - set(self._reasons):
            if (anomaly := await self._client.anomaly(self._fleet.labels[i], since_ms)) is not None:
                self._reasons[i] = anomaly["peak"]["reason"]["text"]
        if self._reasons and not self._is_shown:
            self._is_shown = True
            self._tell(f"  the status page shows it: {self._product.url}/")
            if self._options.browser and not self._options.once and _has_display():
                webbrowser.open(f"{self._product.url}/")

    def _sum_up(self, verdict: Verdict, model: str) -> bool:
        """The last lines; whether all is well."""
        target = self._target
        share = target.forecasts / max(target.scores, 1)
        seconds = time.monotonic() - self._began_s
        print(
            f"Model {model}: {self._options.series} series, {self._pushed:,} samples, "
            f"{target.scores:,} scores, {share:.1%} of them with a forecast; {seconds:.0f} s."
        )
        wrong = [f"{len(verdict.missed)} faults were not found"] if verdict.missed else []
        if len(verdict.false_alarms) > verdict.limit:
            wrong.append(f"{len(verdict.false_alarms)} false alarms, limit {verdict.limit}")
        for name, count in verdict.blamed.items():
            wrong.append(f"{count} series alarmed at a {name}, chance explains {verdict.innocent[name]}")
        if share < _FORECAST_SHARE:
            wrong.append(f"only {share:.0%} of the scores had a forecast, {_FORECAST_SHARE:.0%} are needed")
        faults = len(verdict.found)
        print(
            f"FAILED: {'; '.join(wrong)}." if wrong else f"PASSED: all {faults} faults were found.",
            flush=True,
        )
        return not wrong


def _end(faults: Sequence[Fault]) -> int:
    """The step behind the last one of a round."""
    return max(f.stop for f in faults) + LATE


def _has_display() -> bool:
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
