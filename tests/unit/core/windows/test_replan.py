"""Other pipelines while a partition runs: what stays the same goes on as if nothing had been."""

import functools
import os

import numpy as np
import pytest

from openanomaly.core.pipelines.pipeline import Pipeline, ScoreOptions
from openanomaly.core.windows.output import Output
from openanomaly.core.windows.plan import plan
from openanomaly.core.windows.replan import replan
from openanomaly.errors import RestartNeededError
from unit.core.windows import drive, scenario, world
from unit.core.windows.world import Play, ReplanNow

SEED = 4
EVERY = int(os.environ.get("OPENANOMALY_TEST_CRASH_EVERY", "16"))
START_MS, STEP_MS = scenario.START_MS, scenario.STEP_MS
ALL, TOTALS, SLOW = scenario.pipelines()
SCORE = {"warmup": 3, "block": 12}
TOLERANT = ALL.model_copy(update={"score": ScoreOptions(**SCORE, tolerance=0.5)})
BESIDE = drive.pipeline("beside", selector='{__name__=~"gauge|la.+"}', horizon=12, forecast_every=2)
MINUTES = drive.pipeline("minutes", step_s=60)

CHANGES: dict[str, tuple[Pipeline, ...]] = {
    "added on windows that are there": (ALL, TOTALS, SLOW, BESIDE),
    "added on windows of its own": (MINUTES, ALL, TOTALS, SLOW),
    "removed with its windows": (ALL, TOTALS),
    "removed from windows that stay": (ALL, SLOW),
    "other options": (TOLERANT, TOTALS, SLOW),
    "another selector": (ALL, TOTALS.model_copy(update={"selector": "gauge"}), SLOW),
    "all of them": (BESIDE, MINUTES),
}
"""From ALL, TOTALS and SLOW to these."""


@functools.cache
def play(change: str | None, back: bool = False) -> Play:
    return Play(scenario.pipelines()).run(events(change, back))


def events(change: str | None, back: bool = False) -> list[world.Event]:
    # The model answers all that is asked: one who comes must not be waited for by the others.
    out = [world.Infer() if isinstance(e, world.Infer) else e for e in scenario.events(SEED)]
    if back:
        out.insert(2 * len(out) // 3, ReplanNow(_now(out, 2 * len(out) // 3), (ALL, TOTALS, SLOW)))
    if change is not None:
        out.insert(len(out) // 3, ReplanNow(_now(out, len(out) // 3), CHANGES[change]))
    return out


def _now(some: list[world.Event], at: int) -> int:
    return max((e.now_ms for e in some[:at] if hasattr(e, "now_ms")), default=START_MS)


@pytest.mark.parametrize("change", CHANGES)
def test_who_is_not_changed_is_scored_as_without_the_change(change: str) -> None:
    """No step of theirs is left out, none has another score."""
    same = {p.name for p in (ALL, TOTALS, SLOW) if p in CHANGES[change]}

    assert not world.differing(_of(play(change).broker.said(), same), _of(play(None).broker.said(), same))


@pytest.mark.parametrize("change", CHANGES)
def test_who_comes_is_scored_from_then_on_and_who_goes_no_more(change: str) -> None:
    after = next(e for e in events(change) if isinstance(e, ReplanNow)).now_ms
    wanted = {p.name for p in CHANGES[change]}
    late = {k[0] for k in play(change).broker.said() if k[2] > after + 120_000}

    assert late == wanted


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.timeout(900)
def test_a_crash_at_any_write_leaves_the_same(change: str) -> None:
    calm = play(change)
    for fuse in range(5, calm.broker.writes, EVERY * 4):
        crashed = Play(scenario.pipelines(), [fuse]).run(events(change))

        assert crashed.lives > 1
        world.same_as_undisturbed(crashed.broker, crashed.partition, calm.broker, calm.partition)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.timeout(900)
def test_a_crash_at_any_write_there_and_back_loses_no_step(change: str) -> None:
    """Whoever comes back begins anew, or goes on from the memory it had where a crash was in between."""
    same = {p.name for p in (ALL, TOTALS, SLOW) if p in CHANGES[change]}
    calm = play(change, back=True).broker
    said = calm.said()
    for fuse in range(5, calm.writes, EVERY * 4):
        found = Play(scenario.pipelines(), [fuse, 1]).run(events(change, back=True)).broker.said()

        assert not said.keys() - found.keys()
        assert not world.differing(_of(found, same), _of(said, same))


def _of(said: dict[tuple[str, bytes, int], object], names: set[str]) -> dict[object, object]:
    return {key: verdict for key, verdict in said.items() if key[0] in names}


def test_other_options_keep_memory_and_age() -> None:
    """Nobody is in warm-up again."""
    partition = filled(drive.pipeline())
    wanted = drive.pipeline(score=ScoreOptions(**SCORE, direction="above", min_deviation=3))
    replan(partition, plan([wanted]), 0)
    out = step(partition, 20, 100.0)

    assert partition.counts["warmup"] == 3  # of the first steps
    (frame,) = out.scores
    assert frame.score[0] > 1


@pytest.mark.parametrize("context", [96, 128])
def test_another_context_begins_with_the_steps_and_the_memory_that_are_there(context: int) -> None:
    partition = filled(drive.pipeline())
    before = drive.window(next(iter(partition.blocks.values())), "a")
    out = replan(partition, plan([drive.pipeline(context=context)]), 0)
    (block,) = partition.blocks.values()

    assert drive.window(block, "a")[-64:] == pytest.approx(before, nan_ok=True)
    assert [(bucket, value) for _, bucket, value in drive.steps(block, out)][-1][1] == before[-1]
    assert [frame.context.length for frame in out.due] == [context]
    assert partition.budget.used == partition.series == partition.distinct_series == 1
    assert step(partition, 20, 100.0).scores[0].score[0] > 1


def test_another_context_is_there_after_a_restart() -> None:
    partition = filled(drive.pipeline())
    wanted = drive.pipeline(context=96)
    out = replan(partition, plan([wanted]), 0)
    written = [*out.catalogue, *out.ring, *partition.checkpoint(0).records]
    again = drive.fresh(wanted)
    for record in written:
        again.restore(record.key, record.value)
    again.start()

    assert world.rows(again) == world.rows(partition)


def test_series_that_nobody_wants_any_more_lose_their_rows() -> None:
    partition = drive.partition(drive.pipeline())
    partition.put(drive.frame([("a", START_MS, 1.0), ("b", START_MS, 1.0)], START_MS), 0, START_MS)
    replan(partition, plan([drive.pipeline(selector="b")]), START_MS)
    assert partition.series == 2

    partition.evict(START_MS, 10**9)

    assert partition.series == partition.budget.used == partition.distinct_series == 1


def test_series_that_were_refused_are_taken_though_their_labels_do_not_come_again() -> None:
    partition = drive.partition(drive.pipeline(selector="a"))
    both = drive.frame([("a", START_MS, 1.0), ("b", START_MS, 1.0)], START_MS)
    partition.put(both, 0, START_MS)
    assert partition.counts["unselected"] == 1

    replan(partition, plan([drive.pipeline()]), START_MS)
    later = drive.frame([("a", START_MS + STEP_MS, 1.0), ("b", START_MS + STEP_MS, 1.0)], START_MS)
    partition.put(drive.unlabelled(later), 1, START_MS)

    assert partition.series == 2
    assert partition.counts["unlabelled"] == 0


def test_a_new_forecaster_is_asked_at_once() -> None:
    partition = filled(drive.pipeline())
    out = replan(partition, plan([drive.pipeline(model="chronos-bolt-nano")]), 0)

    assert [(frame.model, frame.row.tolist()) for frame in out.due] == [("chronos-bolt-nano", [0])]
    assert replan(partition, plan([drive.pipeline(model="chronos-bolt-nano")]), 0).due == []


def test_counts_of_windows_that_go_are_kept() -> None:
    partition = filled(drive.pipeline())
    closed = partition.counts["closed_steps"]
    replan(partition, plan([drive.pipeline(step_s=60)]), 0)

    assert partition.counts["closed_steps"] == closed > 0
    assert partition.budget.used == 0


def test_a_copy_takes_what_it_passed_over() -> None:
    """Who writes heard of a pipeline first; the copy reads of its windows before it hears."""
    active = drive.partition(drive.pipeline(), MINUTES)
    written = feed(active, range(40))
    copy = drive.fresh(drive.pipeline())
    for record in written:
        copy.restore(record.key, record.value)
    replan(copy, plan([drive.pipeline(), MINUTES]), 0)
    copy.start()

    assert world.rows(copy) == world.rows(active)


def test_a_copy_that_passed_over_too_much_needs_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openanomaly.core.windows.strangers._MOST_BYTES", 100)
    written = feed(drive.partition(MINUTES), range(40))
    copy = drive.fresh(drive.pipeline())
    for record in written:
        copy.restore(record.key, record.value)

    with pytest.raises(RestartNeededError, match=r"partition 0 .* has passed over windows"):
        replan(copy, plan([drive.pipeline(), MINUTES]), 0)


def filled(pipeline: Pipeline) -> object:
    partition = drive.partition(pipeline)
    feed(partition, range(20))
    return partition


def feed(partition, steps: range) -> list:  # type: ignore[no-untyped-def, type-arg]
    out = Output()
    for i in steps:
        out.add(step(partition, i, float(np.sin(i))))
    return [*out.catalogue, *out.ring, *partition.checkpoint(0).records]


def step(partition, i: int, value: float) -> Output:  # type: ignore[no-untyped-def]
    """A sample of series `a` in step `i`, which closes."""
    t = START_MS + i * STEP_MS
    out = partition.put(drive.frame([("a", t, value)], t), partition.position.samples, t)
    out.add(partition.tick(t + 2 * STEP_MS))
    return out
