"""A row that is used again never shows a stranger's history.

Series come and go, under a limit that is too small for all; rows change owners; the worker is lost and
comes back; forecasts arrive when their row may be another's. What a series sends says who it is.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from openanomaly.core.frames import ForecastFrame
from openanomaly.core.pipelines.pipeline import ScoreOptions
from openanomaly.core.scoring import LEVELS
from openanomaly.core.windows import records
from openanomaly.core.windows.catalogue import Catalogue
from unit.core.windows import drive
from unit.core.windows.world import Broker, Crash, Worker

START_MS, STEP_MS = 1_700_000_000_000, 10_000
TTL_MS = 2 * STEP_MS
STEPS = 40
PIPELINE = drive.pipeline(horizon=16, score=ScoreOptions(warmup=1, block=12))
"""A forecast outlives the row's owner, and the next one is judged from its second step on."""
LEVEL = {
    "one": 1e3, "two": 2e3, "three": 3e3, "four_total": 4e3, "five_total": 5e3, "six": 6e9, "seven": 7e9,
}  # fmt: skip
"""What the steps of each series are about: within 100 of it, and of no other's."""
NAMES = tuple(LEVEL)


@dataclass(frozen=True)
class Story:
    """What happens at each step, apart from which series are told of.

    Attributes:
        alive: (series, steps) whether it sends.
        delay: (steps,) how many steps the model takes for what it is asked then.
        past_ms: (series,) how far behind the clock its samples are.
    """

    alive: np.ndarray
    delay: list[int]
    past_ms: list[int]
    ticks: list[bool]
    checkpoints: list[bool]
    restarts: list[bool]
    fuses: list[int]
    limit: int


@st.composite
def stories(draw: st.DrawFn) -> Story:
    flags = st.lists(st.integers(0, 3).map(lambda i: i == 0), min_size=STEPS, max_size=STEPS)
    alive = np.zeros((len(NAMES), STEPS), bool)
    for one in alive:
        for _ in range(draw(st.integers(1, 3))):
            first = draw(st.integers(0, STEPS - 1))
            one[first : first + draw(st.integers(2, 18))] = True
    return Story(
        alive,
        draw(st.lists(st.integers(0, 12), min_size=STEPS, max_size=STEPS)),
        [draw(st.sampled_from([0, 0, 0, 90_000, 7 * 86_400_000])) for _ in NAMES],
        draw(flags),
        draw(flags),
        draw(flags),
        draw(st.lists(st.integers(0, 60), max_size=4)),
        draw(st.integers(2, 5)),
    )


@dataclass
class Run:
    """A story, told of the samples that `tells` lets through.

    `marks_evictions` makes a checkpoint before each, as idle series are older than that in practice.
    """

    story: Story
    tells: Callable[[str, int], bool]
    fuses: list[int] = field(default_factory=list)
    marks_evictions: bool = True
    limit: int = 1_000

    def __post_init__(self) -> None:
        self.broker = Broker(fuse=self.fuses.pop(0) if self.fuses else -1)
        self.lives = 0
        self.taken: set[tuple[str, int]] = set()
        self._asked: dict[tuple[object, ...], int] = {}
        self._answers: dict[int, list[bytes]] = defaultdict(list)
        self._begin()

    def _begin(self) -> None:
        self.lives += 1
        self.worker = Worker(self.broker, [PIPELINE], ring_first=self.lives % 2 == 1, limit=self.limit)
        self.block = next(iter(self.worker.partition.blocks.values()))

    def _survive(self, act: Callable[[], None]) -> None:
        while True:
            try:
                self.worker.drain()
                act()
                return
            except Crash:
                self.broker.fuse = self.fuses.pop(0) if self.fuses else -1
                self._begin()

    def play(self) -> "Run":
        for i in range(STEPS):
            self._step(i)
        return self

    def _step(self, i: int) -> None:
        story, now_ms = self.story, START_MS + i * STEP_MS
        self.broker.now_ms = now_ms
        self.broker.forecasts += self._answers[i]
        self.broker.written_ms += [now_ms] * len(self._answers[i])
        told = [n for s, n in enumerate(NAMES) if story.alive[s, i] and self.tells(n, i)]
        rows = [(n, now_ms - story.past_ms[NAMES.index(n)], value(n, i)) for n in told]
        self.broker.samples.append(drive.frame(rows, now_ms).encode())
        self._survive(lambda: None)
        self.taken |= {(n, i) for n in told if drive.row_of(self.block, n) >= 0}
        if story.ticks[i]:
            self._survive(lambda: self.worker.tick(now_ms + STEP_MS - 1))
        if story.checkpoints[i] or self.marks_evictions:
            self._survive(lambda: self.worker.checkpoint(now_ms))
        self._survive(lambda: self.worker.evict(now_ms, TTL_MS))
        if story.restarts[i]:
            self._begin()
            self._survive(lambda: None)
        self._think(i)
        self._look()

    def _think(self, i: int) -> None:
        """The model answers in its time what it has not been asked before."""
        for due in self.broker.due:
            key = (due.row.tobytes(), due.generation.tobytes(), due.origin.tobytes())
            if self._asked.setdefault(key, i) < i or i + self.story.delay[i] + 1 >= STEPS:
                continue
            self._asked[key] = -1
            last = np.nan_to_num(due.context.values[:, -1:, None])
            quantiles = last + np.array(LEVELS, np.float32)
            forecast = np.repeat(quantiles, due.horizon, axis=1).astype(np.float32)
            frame = ForecastFrame.pack(due, np.array(LEVELS, np.float32), forecast)
            self._answers[i + self.story.delay[i] + 1].append(frame.encode())

    def _look(self) -> None:
        """At every window there is."""
        catalogue = self.block.catalogue
        for row in catalogue.live_rows().tolist():
            name = name_of(catalogue.labels[row])
            window = np.array(drive.window(self.block, name))
            known = np.isfinite(window)
            closed = int(self.block.state["closed"][row])
            buckets = np.arange(closed - window.size + 1, closed + 1)
            assert not known[buckets < catalogue.born[row]].any()
            assert is_about(name, window[known]), (name, window[known])


def value(name: str, i: int) -> float:
    noise = float((i * 37) % 100)
    if name.endswith("_total"):  # what it counts is its level and some noise a second
        return float(sum((LEVEL[name] + (j * 37) % 100) * STEP_MS / 1000 for j in range(i + 1)))
    return LEVEL[name] + noise


def name_of(labels: bytes) -> str:
    return next(name for name in NAMES if drive.label_block(name) == labels)


def is_about(name: str, values: np.ndarray, slack: float = 0.0) -> bool:
    away = values - LEVEL[name]
    return bool(((away >= -slack) & (away < 100 + slack)).all())


def owners(run: Run) -> dict[tuple[int, int], str]:
    """Whose each row was under each generation, as all records say that others read."""
    out: dict[tuple[int, int], str] = {}
    for record in run.broker.state:
        if records.read_key(record.key)[0] == records.CATALOGUE:
            catalogue = Catalogue(run.block.uid, "")
            catalogue.restore(record.value)
            for row in catalogue.live_rows().tolist():
                at, name = (row, int(catalogue.generation[row])), name_of(catalogue.labels[row])
                assert out.setdefault(at, name) == name, at
    return out


def check_said(run: Run) -> None:
    """Every score, and every question to the model, is about its own series only."""
    owner = owners(run)
    for frame in run.broker.scores:
        for i, s in enumerate(frame.row.tolist()):
            name = name_of(frame.series.block(s))
            assert is_about(name, frame.value[i : i + 1])
            median = frame.expected[i, :1]
            assert is_about(name, median[np.isfinite(median)], slack=1.0), (name, median)
    for due in run.broker.due:
        for row, generation, context in zip(due.row, due.generation, due.context.values, strict=True):
            name = owner[int(row), int(generation)]
            base = LEVEL[name] if LEVEL[name] > 65_536 else 0.0
            known = context[np.isfinite(context)].astype(np.float64)
            if base:
                assert (np.abs(known) < 101).all()  # relative to the base, which is its first value
            else:
                assert is_about(name, known, slack=1.0)


def reused(run: Run) -> bool:
    return bool((run.block.catalogue.generation[: run.block.rows] > 1).any())


def verdicts(run: Run, name: str) -> dict[object, object]:
    return {key: told for key, told in run.broker.said().items() if key[1] == drive.label_block(name)}


@settings(max_examples=60, deadline=None)
@given(story=stories())
def test_windows_forecasts_and_scores_are_of_the_own_series(story: Story) -> None:
    run = Run(story, lambda n, i: True, list(story.fuses), False, story.limit).play()
    check_said(run)


@settings(max_examples=60, deadline=None)
@given(story=stories(), subject=st.sampled_from(NAMES))
def test_no_score_depends_on_strangers(story: Story, subject: str) -> None:
    """The same as in a life in which there never was another series."""
    crowd = Run(story, lambda n, i: True, list(story.fuses), True, story.limit).play()
    check_said(crowd)
    alone = Run(story, lambda n, i: n == subject and (n, i) in crowd.taken).play()

    assert verdicts(crowd, subject) == verdicts(alone, subject)


def test_the_stories_have_rows_with_new_owners_refusals_and_late_forecasts() -> None:
    """What the properties above are about happens in the first story that one would think of."""
    alive = np.zeros((len(NAMES), STEPS), bool)
    alive[0, :10] = alive[1, :12] = alive[2, 5:30] = alive[3, 18:] = alive[5, 20:] = True
    never = [False] * STEPS
    story = Story(alive, [11] * STEPS, [0] * len(NAMES), [True] * STEPS, never, never, [], 3)
    run = Run(story, lambda n, i: True, limit=3).play()
    check_said(run)

    assert reused(run)
    assert run.worker.partition.counts["evicted"] >= 3
    rows = {(int(r), int(g)) for d in run.broker.due for r, g in zip(d.row, d.generation, strict=True)}
    assert len({r for r, _ in rows}) < len(rows)  # the model was asked for both owners of a row
    late = [ForecastFrame.decode(f) for f in run.broker.forecasts]
    assert sum(f.row.size for f in late) > run.worker.partition.counts["forecasts"]
