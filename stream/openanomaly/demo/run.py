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

from openanomaly.adapters.remote_write.encode import HEADERS
from openanomaly.demo import report
from openanomaly.demo.faults import Fault, World, deployments, plan
from openanomaly.demo.fleet import DAY, Fleet
from openanomaly.demo.product import HOST, DemoError, Product, free_port
from openanomaly.demo.report import tell
from openanomaly.demo.target import PATH, Target
from openanomaly.demo.verdict import ALERT, LATE, Verdict, judge
from openanomaly.demo.writing import Writer
from openanomaly.exits import CRASH

FAILED = 1
INTERRUPTED = 130

HISTORY = 5 * DAY
_CHUNK = 8
"""Steps of history sent at once: forecasts are then 8 to 24 steps old when they are used."""
_STEP_WALL_S = 0.1
_BETWEEN = 96
"""Steps between two rounds."""
_HEADROOM = 60 * DAY
"""Steps that rounds have before the fleet's time has caught up with ours."""
_STALLED_S = 60.0
_FORECAST_SHARE = 0.95


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says; `flags` are settings of the product by their dotted names."""

    series: int = 200
    seed: int = 1
    port: int = 9201
    once: bool = False
    browser: bool = True
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


async def _run(options: Options, folder: Path) -> int:
    demo = Demo(options, folder)
    playing = asyncio.create_task(demo.play())
    is_stopped = False

    def stop() -> None:
        nonlocal is_stopped
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
        report.complain(str(exc))
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
        self._faults = plan(self._fleet, HISTORY, options.seed)
        ahead = _end(self._faults) + 2 + (0 if options.once else _HEADROOM)
        self._start_ms = (round(time.time() * 1000) // self._step_ms - ahead) * self._step_ms
        self._target = Target(self._fleet.labels, self._step_ms, self._start_ms)
        self._pushed = 0
        self._browser = options.browser and not options.once and _has_display()
        self._reasons: dict[int, str] = {}
        self._told: set[Fault] = set()

    async def play(self) -> int:
        """From start to end; the exit status.

        Raises:
            DemoError: the product did not do its part.
        """
        runner = await self._target.serve(HOST)
        playing: asyncio.Task[int] | None = None
        try:
            self._tell("starting the product")
            await self._product.start(self._target.url)
            ended = asyncio.create_task(self._product.ended())
            playing = asyncio.create_task(self._play())
            await asyncio.wait({playing, ended}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                ended.result()
            ended.cancel()
            return await playing
        finally:
            if playing is not None:
                playing.cancel()
                await asyncio.wait({playing})
            await self._product.stop()
            await runner.cleanup()

    async def _play(self) -> int:
        async with aiohttp.ClientSession() as self._session:
            await self._product.ready(self._session)
            model = await self._model()
            self._tell(f"ready: {self._product.url}/ (model {model})")
            await self._history()
            while True:
                verdict = await self._round()
                print("\n" + report.table(self._fleet, self._faults, verdict, self._reasons))
                passed = self._sum_up(verdict, model)
                if self._options.once:
                    return 0 if passed else FAILED
                await self._pause()

    # -- what is played ------------------------------------------------------------------------

    async def _history(self) -> None:
        days = HISTORY // DAY
        self._tell(
            f"{days} days of history of {self._options.series} series, {report.minutes(1)} a step, "
            "as fast as they are taken in"
        )
        day = 0
        past = deployments(self._fleet, days, self._options.seed)
        while self._fleet.step < HISTORY:
            await self._push(_CHUNK, past)
            # The engine may be at work on one chunk while windows take in the next.
            await self._taken_in(_CHUNK)
            if self._fleet.step // DAY > day:
                day = self._fleet.step // DAY
                self._tell(f"  day {day} of {days}")

    async def _round(self) -> Verdict:
        """Faults, and what was found of them."""
        first, end = self._fleet.step, _end(self._faults)
        self._target.keep(first, end - first)
        self._reasons.clear()
        self._told.clear()
        self._tell(f"faults begin; {1 / _STEP_WALL_S:.0f} steps a second from here on")
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
        self._faults = plan(self._fleet, self._fleet.step, self._options.seed)

    async def _live(self, steps: int, faults: Sequence[Fault]) -> None:
        """Steps at a pace that people can follow, and never ahead of the wall clock."""
        next_s = time.monotonic()
        for _ in range(steps):
            await self._push(1, faults)
            await self._taken_in(2)
            await self._tell_found()
            next_s = max(next_s + _STEP_WALL_S, time.monotonic())
            await asyncio.sleep(next_s - time.monotonic())
            await asyncio.sleep(max(0.0, self._time_ms(self._fleet.step) / 1000 - time.time()))

    def _time_ms(self, step: int) -> int:
        """When a step's sample is taken: in the middle of the step."""
        return self._start_ms + step * self._step_ms + self._step_ms // 2

    # -- what the product is sent, and asked ---------------------------------------------------

    async def _push(self, steps: int, faults: Sequence[Fault] = ()) -> None:
        """Send the next steps of the fleet."""
        first = self._fleet.step
        samples = self._world.take(steps, faults)
        time_ms = np.array([self._time_ms(first + k) for k in range(steps)])
        bodies = self._writer.requests(samples, time_ms)
        await asyncio.gather(*(self._send(body) for body in bodies))
        self._pushed += int(samples.is_there.sum())

    async def _send(self, body: bytes) -> None:
        while True:
            url = self._product.url + PATH
            async with self._session.post(url, data=body, headers=HEADERS) as answer:
                if answer.status < 300:
                    return
                if answer.status != 503:
                    raise DemoError(f"the receiver answered {answer.status}: {await answer.text()}")
            await asyncio.sleep(0.2)

    async def _taken_in(self, steps: int) -> None:
        """Wait until windows hold all that was sent, and but `steps` steps of it lack their forecasts."""
        lacking = steps * self._options.series / self._product.settings.pipelines[0].forecast_every
        counts: Mapping[str, int] = {}
        since_s = time.monotonic()
        while True:
            before, counts = counts, (await self._status())["window"]["counts"]
            due = counts.get("due", 0) - counts.get("forecasts", 0)
            if counts.get("in", 0) >= self._pushed and due <= max(lacking, 1):
                return
            if counts != before:
                since_s = time.monotonic()
            elif time.monotonic() - since_s > _STALLED_S:
                raise DemoError(
                    f"no progress for {_STALLED_S:.0f} s: {counts.get('in', 0)} of {self._pushed} samples "
                    f"are in windows, {due} forecasts are missing{self._product.last_words()}"
                )
            await asyncio.sleep(0.01)

    async def _scored(self, step: int) -> None:
        """Wait until every series has its score of `step`."""
        since_s, before = time.monotonic(), -1
        while (self._target.last < step).any():
            if self._target.scores != before:
                since_s, before = time.monotonic(), self._target.scores
            elif time.monotonic() - since_s > _STALLED_S:
                late = int((self._target.last < step).sum())
                raise DemoError(f"no scores of {late} series{self._product.last_words()}")
            await asyncio.sleep(0.05)

    async def _status(self) -> Any:
        async with self._session.get(f"{self._product.url}/api/v1/admin/status") as answer:
            return await answer.json()

    async def _model(self) -> str:
        models = (await self._status())["inference"]["models"]
        return ", ".join(sorted(set(models.values())))

    # -- what people are told ------------------------------------------------------------------

    def _tell(self, text: str) -> None:
        tell(time.monotonic() - self._began_s, text)

    async def _tell_found(self) -> None:
        """Say which faults have alarmed since the last time; show the page with the first one."""
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
                if self._browser:
                    self._browser = False
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
