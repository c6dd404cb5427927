"""`openanomaly demo --send-to URL`: the simulated fleet's past, faults in it, for an installation of yours.

The fleet's last step is the present one. What was found shows where the installation writes its scores.
"""

import asyncio
import time
from collections.abc import Sequence

import aiohttp
import numpy as np

from openanomaly.adapters.remote_write.encode import HEADERS
from openanomaly.demo.faults import Fault, World, deployments, plan
from openanomaly.demo.fleet import DAY, Fleet
from openanomaly.demo.product import STEP_S, DemoError
from openanomaly.demo.report import tell
from openanomaly.demo.verdict import LATE
from openanomaly.demo.writing import Writer

_CHUNK = 16
"""Steps sent at once: a series has one forecast in as many."""
_PAUSE_S = 0.15
"""Between two of them: what one core of inference needs for the forecasts of 200 series and a little more."""
_WAIT_S = 60.0
"""For a receiver that is away or busy."""


async def send(url: str, series: int, seed: int, days: int) -> int:
    """Send it, and say which faults are in it; how many samples the receiver took.

    Raises:
        DemoError: the receiver refuses a request, or is away for too long.
    """
    began_s = time.monotonic()
    fleet = Fleet(series, seed)
    faults = plan(fleet, days * DAY, seed, np.zeros(series, np.int64))
    steps = max(fault.stop for fault in faults) + LATE
    step_ms = STEP_S * 1000
    first_ms = (round(time.time() * 1000) // step_ms - steps) * step_ms + step_ms // 2
    tell(0.0, f"{steps} steps of {series} series, {STEP_S} s each, to {url}")
    world, writer = World(fleet, STEP_S), Writer(fleet.labels)
    apart = [*deployments(fleet, days, seed), *faults]
    sent = 0
    async with aiohttp.ClientSession() as session:
        while (first := fleet.step) < steps:
            samples = world.take(min(_CHUNK, steps - first), apart)
            time_ms = first_ms + np.arange(first, fleet.step, dtype=np.int64) * step_ms
            for body in writer.requests(samples, time_ms):
                await _post(session, url, body)
            sent += int(samples.is_there.sum())
            await asyncio.sleep(_PAUSE_S)
    tell(time.monotonic() - began_s, f"{sent:,} samples were taken; faults are in these series:")
    _tell_faults(fleet, faults, first_ms)
    return sent


async def _post(session: aiohttp.ClientSession, url: str, body: bytes) -> None:
    """Send one request until it is taken."""
    end_s = time.monotonic() + _WAIT_S
    while True:
        try:
            async with session.post(url, data=body, headers=HEADERS) as answer:
                if answer.status < 300:
                    return
                said = f"{answer.status}: {await answer.text()}"
                if answer.status < 500:
                    raise DemoError(f"{url} answered {said}")
        except aiohttp.ClientError as exc:
            said = str(exc)
        if time.monotonic() > end_s:
            raise DemoError(f"{url} takes no samples for {_WAIT_S:.0f} s: {said}")
        await asyncio.sleep(1.0)


def _tell_faults(fleet: Fleet, faults: Sequence[Fault], first_ms: int) -> None:
    for fault in faults:
        if fault.kind.must_alarm:
            at = time.gmtime(first_ms / 1000 + fault.start * STEP_S)
            print(f"  {time.strftime('%H:%M', at)} UTC  {fault.kind.name}: {fleet.name(fault.series)}")
