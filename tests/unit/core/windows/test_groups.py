"""Counts of groups agree with the scores of their series, whatever happens to the worker that counts."""

import asyncio
import functools
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openanomaly.core.frames import ScoreFlag
from openanomaly.core.group_frames import GroupCounts, GroupFrame, by_owner
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.scoring.scorer import Judged
from openanomaly.core.series import canonical, encode_labels, partition_of
from openanomaly.core.windows import groups
from openanomaly.core.windows.groups import Grouping
from openanomaly.errors import MalformedFrameError
from unit.agents import lossy
from unit.core.windows import drive, scenario
from unit.core.windows.world import Broker, Event, Play, TickNow

JOBS = ("a", "b", "")
SEEDS = (2, 4, 6)
END_MS = scenario.START_MS + 3_600_000

Counted = dict[tuple[str, bytes, int], tuple[int, int]]


def grouped() -> list[Pipeline]:
    return [p.model_copy(update={"group_by": ("job",)}) for p in scenario.pipelines()]


def events(seed: int) -> list[Event]:
    return [*scenario.events(seed, jobs=JOBS), TickNow(END_MS), TickNow(END_MS + 120_000)]


def rate(pipeline: str, **labels: str) -> bytes:
    return encode_labels(canonical([("__name__", "anomaly_rate"), ("pipeline", pipeline), *labels.items()]))


def counted_from(broker: Broker) -> Counted:
    """The same from what was said of each series."""
    step_ms = {p.name: p.step_ms for p in scenario.pipelines()}
    out: dict[tuple[str, bytes, int], list[int]] = defaultdict(lambda: [0, 0])
    for (pipeline, labels, end_ms), (_, _, _, flags, *_) in broker.said().items():
        for job in JOBS[:2]:
            if b"\x12" + bytes((len(job),)) + job.encode() in labels:
                both = out[pipeline, rate(pipeline, job=job), end_ms // step_ms[pipeline] - 1]
                both[0] += 1
                both[1] += bool(int(flags) & ScoreFlag.OPEN)  # type: ignore[call-overload]
    return {key: (scored, odd) for key, (scored, odd) in out.items()}


@functools.cache
def undisturbed(seed: int) -> Play:
    return Play(grouped()).run(events(seed))


@pytest.mark.parametrize("seed", SEEDS)
def test_every_step_of_every_group_is_told_as_the_scores_of_its_series_are(seed: int) -> None:
    broker = undisturbed(seed).broker
    found = broker.counted()
    assert found == counted_from(broker)
    assert len(found) > 100
    assert sum(odd for _, odd in found.values()) > 10
    assert {scored for scored, _ in found.values()} >= {1, 2, 3}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.timeout(600)
def test_a_crash_at_any_write_changes_no_count(seed: int) -> None:
    calm = undisturbed(seed)
    for fuse in range(seed, calm.broker.writes, 16):
        crashed = Play(grouped(), [fuse]).run(events(seed))
        assert crashed.lives > 1
        assert crashed.broker.counted() == calm.broker.counted(), fuse


@functools.cache
def calm_agent(seed: int) -> lossy.Play:
    return asyncio.run(lossy.Play(grouped()).run(events(seed)))


@pytest.mark.timeout(600)
@settings(max_examples=4, deadline=None)
@given(
    seed=st.sampled_from(SEEDS),
    fuses=st.lists(st.integers(1, 300), min_size=1, max_size=4),
    keeps=st.booleans(),
)
def test_a_crash_of_the_agent_at_any_await_changes_no_count(seed: int, fuses: list[int], keeps: bool) -> None:
    calm = calm_agent(seed)
    crashed = asyncio.run(lossy.Play(grouped(), fuses, keeps=keeps).run(events(seed)))
    assert len(crashed.lives) > len(calm.lives)
    assert crashed.broker.counted() == calm.broker.counted() == counted_from(calm.broker)


# -- by hand -----------------------------------------------------------------------------------


def judged(*scores: float) -> Judged:
    out = Judged.empty(len(scores))
    out.score[:] = scores
    out.flags[:] = np.where(out.score > 1, ScoreFlag.OPEN, 0)
    return out


def labels(*jobs: str) -> list[bytes]:
    return [encode_labels(canonical([("__name__", "up"), ("job", job)])) for job in jobs]


def at(*rows: int) -> np.ndarray:
    return np.array(rows, np.int64)


def told(counts: list[GroupCounts]) -> list[tuple[int, bool, dict[bytes, tuple[int, int]]]]:
    return [
        (
            c.bucket,
            c.is_final,
            {c.series.block(i): (int(c.scored[i]), int(c.anomalous[i])) for i in range(len(c.series))},
        )
        for c in counts
    ]


def grouping(by: tuple[str, ...] = ("job",)) -> Grouping:
    return Grouping(drive.pipeline("p", group_by=by, lateness_s=10), 16)


def test_a_step_is_told_when_it_has_waited_for_its_lateness_and_then_also_without_series() -> None:
    g = grouping()
    g.count(at(0, 1, 2), at(7, 7, 7), judged(0.1, 3, np.nan), labels("a", "a", "a"), now_ms=81_000)
    assert told(list(g.due(89_999, 0))) == [(6, True, {})], "the step before had none"
    assert told(list(g.due(90_000, 0))) == [(7, True, {rate("p", job="a"): (2, 1)})]
    assert told(list(g.due(99_999, 0))) == []
    assert told(list(g.due(100_000, 0))) == [(8, True, {})]


def test_a_step_that_is_late_waits_as_long_behind_its_first_series() -> None:
    g = grouping()
    g.count(at(0), at(7), judged(2), labels("a"), now_ms=500_000)
    assert told(list(g.due(509_999, 0))) == [(48, True, {})]
    g.count(at(1), at(7), judged(0), labels("a", "a"), now_ms=509_999)
    assert told(list(g.due(510_000, 0))) == [(7, True, {rate("p", job="a"): (2, 1)}), (49, True, {})]


def test_a_step_waits_for_those_before_it_but_not_for_a_whole_history() -> None:
    g = grouping()
    g.count(at(0), at(50), judged(0), labels("a"), now_ms=515_000)
    g.count(at(0), at(30), judged(0), labels("a"), now_ms=516_000)
    assert [b for b, _, _ in told(list(g.due(520_000, 0)))] == []
    assert [b for b, _, _ in told(list(g.due(526_000, 0)))] == [30, 50]

    g = grouping()
    g.count(at(0), at(50), judged(0), labels("a"), now_ms=515_000)
    for i in range(30):
        g.count(at(0), at(i), judged(0), labels("a"), now_ms=516_000 + i * 1_000)
        now = told(list(g.due(516_000 + i * 1_000, 0)))
        if any(b == 50 for b, _, _ in now):
            break
    assert i == 14, "twice its lateness after its end"


def test_what_a_tick_closes_is_not_older_than_the_samples_before_it() -> None:
    g = grouping()
    g.count(at(0), at(5), judged(0), labels("a"), now_ms=500_000)
    g.count(at(0), at(6), judged(0), labels("a"), now_ms=499_000)
    assert [b for b, _, said in told(list(g.due(509_500, 0))) if said] == []
    assert [b for b, _, said in told(list(g.due(510_000, 0))) if said] == [5, 6]


def test_series_with_none_of_the_labels_are_in_no_group_and_with_some_in_one_of_those() -> None:
    g = grouping(("job", "zone"))
    blocks = [
        encode_labels(canonical([("__name__", "up"), *more.items()]))
        for more in ({}, {"job": "a"}, {"zone": "1"}, {"job": "a", "zone": "1"}, {"instance": "x"})
    ]
    g.count(at(0, 1, 2, 3, 4), at(0, 0, 0, 0, 0), judged(0, 0, 0, 0, 0), blocks, 0)
    (counts,) = g.all(0)
    assert {counts.series.block(i) for i in range(len(counts.series))} == {
        rate("p", job="a"),
        rate("p", zone="1"),
        rate("p", job="a", zone="1"),
    }


def test_what_was_told_before_a_checkpoint_is_not_told_behind_it() -> None:
    g = grouping()
    g.count(at(0), at(7), judged(2), labels("a"), 0)
    assert told(list(g.so_far(0))) == [(7, False, {rate("p", job="a"): (1, 1)})]
    assert told(list(g.so_far(5))) == []
    g.count(at(1), at(7), judged(0), labels("a", "a"), 0)
    assert told(list(g.all(5))) == [(7, True, {rate("p", job="a"): (1, 0)})]


def test_groups_without_series_make_room_and_what_finds_none_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(groups, "MOST", 2)
    g = grouping()
    g.count(at(0, 1, 2), at(7, 7, 7), judged(2, 2, 2), labels("a", "b", "c"), 0)
    assert g.refused == 1
    g.reset(at(0))
    g.count(at(0, 1), at(7, 7), judged(0, 0), labels("d", "b"), 0)
    assert g.refused == 1
    assert told(list(g.all(0))) == [(7, True, {rate("p", job="b"): (2, 1), rate("p", job="d"): (1, 0)})]


def test_history_that_comes_at_once_is_told_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "MOST_STEPS", 4)
    p = drive.partition(drive.pipeline("p", group_by=("job",), score={"warmup": 1, "block": 12}))
    counts: list[GroupCounts] = []
    for i in range(40):
        rows = [(f"s{n}@a", i * 10_000 + 1, float(i % 3)) for n in range(3)]
        counts += p.put(drive.frame(rows), i, 10**9).groups
    assert [c.bucket for c in counts] == sorted(c.bucket for c in counts)
    assert len(counts) > 30
    assert all(c.is_final and c.scored.tolist() == [3] for c in counts)
    assert max(len(s.groups._steps) for b in p.blocks.values() for s in b.scorings if s.groups) <= 5


# -- on the broker -----------------------------------------------------------------------------


def some_counts(jobs: int) -> GroupCounts:
    g = Grouping(drive.pipeline("p", group_by=("job",)), jobs)
    n = np.arange(jobs)
    g.count(n, np.full(jobs, 7), judged(*(2.0 * (n % 2))), labels(*(f"job-{i:0100d}" for i in n)), 0)
    (counts,) = g.all(3)
    return counts


def test_a_frame_comes_back_as_it_was() -> None:
    counts = some_counts(5)
    back = GroupFrame.decode(GroupFrame(2, [counts, counts]).encode())
    assert back.partition == 2
    for c in back.counts:
        assert told([c]) == told([counts])
        assert (c.pipeline, c.step_ms, c.part) == ("p", 10_000, 3)


def test_every_owner_is_told_of_its_groups_and_of_some_steps_without_any() -> None:
    counts = some_counts(20)
    for for_all in (True, False):
        whole = replace(counts, for_all=for_all)
        owners = by_owner([whole], 64)
        assert sum(len(c.series) for cs in owners for c in cs) == 20
        assert all(len(cs) == 1 for cs in owners) == for_all
        for number, cs in enumerate(owners):
            assert all((partition_of(c.series.ids, 64) == number).all() for c in cs)
    assert told(by_owner([counts], 1)[0]) == told([counts])


def test_a_frame_that_is_too_long_is_several_and_the_last_one_says_that_it_is_final() -> None:
    counts = some_counts(9_000)
    frames = [GroupFrame.decode(record) for record in GroupFrame(0, [counts, counts]).records()]
    assert len(frames) > 2
    pieces = [c for frame in frames for c in frame.counts]
    assert [c.is_final for c in pieces].count(True) == 2
    assert pieces[-1].is_final
    assert sum(int(c.scored.sum()) for c in pieces) == 18_000


def test_counts_that_cannot_be_read_are_refused() -> None:
    counts = some_counts(3)
    short = replace(counts, scored=counts.scored[:2])
    with pytest.raises(MalformedFrameError, match="scored series"):
        GroupFrame.decode(GroupFrame(0, [short]).encode())
    nostep = replace(counts, step_ms=0)
    with pytest.raises(MalformedFrameError, match="step of 0"):
        GroupFrame.decode(GroupFrame(0, [nostep]).encode())
