"""Random faults, one after another, under load."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from chaos.faults import Fault, Scene

_OVERLAP = 0.2
"""Share of faults that come before all is well after the one before."""
_RECOVER_S = 180.0


@dataclass
class Campaign:
    """What happened: by fault, how long it took from its end until steps were scored as before."""

    recovery_s: dict[str, list[float]] = field(default_factory=dict)
    not_recovered: list[str] = field(default_factory=list)

    @property
    def all_s(self) -> list[float]:
        return sorted(s for each in self.recovery_s.values() for s in each)


async def each(scene: Scene, faults: Iterable[tuple[str, Fault]], pace_s: float) -> Campaign:
    """Have these faults happen, each after recovery from the one before."""
    out = Campaign()
    pushing = asyncio.create_task(scene.room.keep_pushing(pace_s))
    try:
        for name, fault in faults:
            await fault(scene)
            await _recovered(scene, name, time.monotonic(), out)
    finally:
        pushing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await pushing
    return out


async def run(
    scene: Scene,
    faults: int,
    choices: Mapping[str, tuple[float, Fault]],
    pace_s: float,
    tell: Callable[[str], None] = lambda line: None,
) -> Campaign:
    """Have `faults` of `choices` happen while steps are pushed; each kind at least once if there is room."""
    room, random, out = scene.room, scene.random, Campaign()
    names = list(choices)
    order = random.sample(names, len(names))[:faults]
    order += random.choices(names, [choices[n][0] for n in names], k=faults - len(order))
    pushing = asyncio.create_task(room.keep_pushing(pace_s))
    waits: list[asyncio.Task[None]] = []
    try:
        for number, name in enumerate(order):
            await asyncio.sleep(random.uniform(0.2, 2.0))
            began_s = time.monotonic()
            await choices[name][1](scene)
            ended_s = time.monotonic()
            wait = asyncio.create_task(_recovered(scene, name, ended_s, out))
            waits.append(wait)
            if number == faults - 1 or random.random() >= _OVERLAP:
                await asyncio.gather(*waits)
                waits.clear()
            recovered = f"{out.recovery_s[name][-1]:.1f} s" if wait.done() else "overlapped"
            tell(f"{number + 1:4d} {name}: {ended_s - began_s:.1f} s, recovery {recovered}; {room.summary()}")
            if pushing.done() or room.error is not None:
                break
    finally:
        pushing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await pushing
        for wait in waits:
            wait.cancel()
    return out


async def _recovered(scene: Scene, name: str, ended_s: float, out: Campaign) -> None:
    """Wait for the scores of a step that is sent after the end of a fault."""
    room = scene.room
    step = room.sender.released
    try:
        await room.scored(step, _RECOVER_S)
    except TimeoutError as exc:
        out.not_recovered.append(f"{name}: {exc}")
    out.recovery_s.setdefault(name, []).append(room.target.complete_s.get(step, time.monotonic()) - ended_s)
