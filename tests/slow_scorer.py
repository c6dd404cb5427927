"""The scoring rules once more, for one series, in plain Python: what `core/scoring` must equal."""

import math
from dataclasses import dataclass, field
from statistics import NormalDist

from openanomaly.core.pipelines.pipeline import ScoreOptions
from openanomaly.core.scoring import LEVELS

INF = math.inf
Z = [NormalDist().inv_cdf(p) for p in LEVELS]


@dataclass
class Record:
    """The block maxima of one statistic."""

    filed: list[tuple[int, float]] = field(default_factory=list)
    open: float = -INF

    def reference(self) -> float:
        """The second largest block, the open one included; the largest until two are filed."""
        blocks = sorted([v for _, v in self.filed] + [self.open], reverse=True)
        return blocks[1] if len(self.filed) >= 2 else blocks[0]

    def see(self, value: float) -> None:
        self.open = max(self.open, value)

    def file(self, ended: int, now: int, memory: int) -> None:
        if self.open > -INF:
            self.filed.append((ended, self.open))
        self.filed = [(number, v) for number, v in self.filed if now - number <= memory]
        # Only the four largest are kept.
        self.filed = sorted(self.filed, key=lambda b: -b[1])[:4]
        self.open = -INF


def normal_score(y: float, q: list[float], floor: float) -> float:
    d = y - q[2]
    if y > q[4]:
        z = Z[4] + (y - q[4]) / max((q[4] - q[2]) / Z[4], floor)
    elif y < q[0]:
        z = Z[0] + (y - q[0]) / max((q[2] - q[0]) / Z[4], floor)
    else:
        z = Z[0]
        for i in range(4):
            width = max(q[i + 1] - q[i], 1e-37)
            z += min(max((y - q[i]) / width, 0.0), 1.0) * (Z[i + 1] - Z[i])
    limit = min(abs(d) / floor, 6.0)
    return min(max(z, -limit), limit)


class SlowScorer:
    """One series of page 0."""

    def __init__(self, options: ScoreOptions) -> None:
        self.o = options
        self.block: int | None = None
        self.forget()

    def forget(self) -> None:
        self.value = {scale: (Record(), Record()) for scale in (1, 12, 48)}
        self.error, self.surprise, self.quiet, self.run_length = Record(), Record(), Record(), Record()
        self.age = self.told = 0
        self.run = 0
        self.m12 = self.m48 = self.z12 = self.spread = 0.0
        self.last = math.nan

    def records(self) -> list[Record]:
        return [r for pair in self.value.values() for r in pair] + [
            self.error,
            self.surprise,
            self.quiet,
            self.run_length,
        ]

    def step(self, bucket: int, y: float, band: list[float]) -> dict[str, float] | None:
        """Parts of the score of this step by channel and side; None in warm-up."""
        o = self.o
        if o.data_range and not o.data_range[0] <= y <= o.data_range[1]:
            return {"out_of_range": 1.01} if self.age >= o.warmup else None
        now = bucket // o.block
        if self.block is not None and now - self.block > o.memory:
            self.forget()
        elif self.block is not None and now > self.block and self.age >= o.block:
            for r in self.records():
                r.file(self.block, now, o.memory)
            # A block begins with the step before it.
            for x, (high, low) in zip((self.last, self.m12, self.m48), self.value.values(), strict=True):
                high.open, low.open = x, -x
        self.block = now
        jitter = 1e-12 + 1e-9 * abs(y)
        told = not math.isnan(band[2])

        w12, w48 = max(2 / 13, 1 / (self.age + 1)), max(2 / 49, 1 / (self.age + 1))
        if self.age == 0:
            self.m12 = self.m48 = y
        floor = max(self.spread / 16, jitter)
        z = normal_score(y, band, floor) if told else 0.0
        distance = y - self.m48
        self.m12 += w12 * (y - self.m12)
        self.m48 += w48 * distance
        self.z12 += max(2 / 13, 1 / (self.told + 1)) * (z - self.z12)
        self.spread += w48 * (abs(distance) - self.spread)
        self.run = self.run + 1 if abs(y - self.last) <= jitter else 0
        self.last = y

        parts = self._parts(y, band, jitter, told)
        for x, (high, low) in zip((y, self.m12, self.m48), self.value.values(), strict=True):
            high.see(x)
            low.see(-x)
        if told:
            self.error.see(abs(y - band[2]))
        if self.told >= 24:
            self.surprise.see(abs(self.z12))
        if self.age >= 96:
            self.quiet.see(-self.spread)
        self.run_length.see(self.run)
        ready = self.age >= o.warmup
        self.age += 1
        self.told += told
        return parts if ready else None

    def _parts(self, y: float, band: list[float], jitter: float, told: bool) -> dict[str, float]:
        o = self.o
        if self.age == 0:
            return {}
        young = max(0.1 * math.log(2500 / max(self.age, 50)), 0)
        sure = max(0.1 * math.log(2500 / max(self.told, 50)), 0)
        signed = {}
        names = ("value", "mean_12", "mean_48")
        for name, x, (high, low) in zip(names, (y, self.m12, self.m48), self.value.values(), strict=True):
            top, bottom = high.reference(), -low.reference()
            if top < bottom and len(high.filed) >= 2:  # blocks with no value in common
                top, bottom = max(v for _, v in high.filed), -max(v for _, v in low.filed)
            half = max((top - bottom) / 2, jitter)
            signed[name] = (x - (top + bottom) / 2) / (half * (1 + 2 * o.tolerance + young))
        if self.told >= o.warmup and self.error.reference() > -INF:
            if told:
                limit = max(self.error.reference(), 1e3 * jitter)
                signed["error"] = (y - band[2]) / (limit * (1 + o.tolerance + sure))
            limit = max(self.surprise.reference(), 0.05)
            signed["surprise"] = self.z12 / (limit * (1 + o.tolerance + sure))
        out = {}
        for name, s in signed.items():
            if s >= 0 and o.direction != "below":
                out[name + " above"] = s / o.scale[1]
            if s < 0 and o.direction != "above":
                out[name + " below"] = -s / o.scale[0]
        if o.direction == "both":
            smallest = -self.quiet.reference()
            if smallest < INF:
                out["quiet"] = smallest / (max(self.spread, jitter) * (1 + 2.5 * o.tolerance + young))
            out["froze"] = self.run / (max(self.run_length.reference(), 6) * (1 + 5 * o.tolerance + young))
        if o.channels is not None:
            out = {k: v for k, v in out.items() if k.split()[0] in o.channels}
        least = max(o.min_deviation, o.min_relative_deviation * abs(band[2] if told else self.m48))
        if least > 0:
            part = abs(y - (band[2] if told else self.m48)) / least
            if part < 1:
                out = {k: min(v, part) for k, v in out.items()}
        return {k: min(v, 10.0) for k, v in out.items()}
