"""Counts of groups agree with the scores of their series, whatever happens to the worker that counts."""

import asyncio
import functools
from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openanomaly.core.frames import SampleFrame, ScoreFlag
from openanomaly.core.group_frames import GroupCounts, GroupFrame, Through, by_owner, encode_through
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.scoring.scorer import Judged
from openanomaly.core.series import canonical, encode_labels, partition_of
from openanomaly.core.series_column import SeriesColumn
from openanomaly.core.windows import groups
from openanomaly.core.windows.groups import Grouping
from openanomaly.core.windows.partition import Partition
from openanomaly.core.windows.parts import Parts, Start
from openanomaly.errors import MalformedFrameError
from openanomaly.pb.openanomaly.v1 import changelog_pb2 as pb
from unit.agents import lossy
from unit.core.windows import drive, scenario
from unit.core.windows.world import Broker, CheckpointNow, Event, Play, Samples, TickNow

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


def told(counts: list[GroupCounts]) -> list[tuple[int, dict[bytes, tuple[int, int]]]]:
    """By step, how many of each group have a score, and are in an episode."""
    return [
        (c.bucket, {c.series.block(i): (int(c.scored[i]), int(c.anomalous[i])) for i in range(len(c.series))})
        for c in counts
    ]


def grouping(by: tuple[str, ...] = ("job",), first: int | None = None) -> Grouping:
    """Of a pipeline whose steps of ten seconds wait for ten, with what is on its way."""
    return Grouping(drive.pipeline("p", group_by=by, lateness_s=8), 16, Counter(), first)


def due(g: Grouping, now_ms: int) -> list[tuple[int, dict[bytes, tuple[int, int]]]]:
    return told(g.tell_due(now_ms, 0).counts)


def test_a_step_is_told_when_it_has_waited_for_its_lateness() -> None:
    g = grouping()
    g.count(at(0, 1, 2), at(7, 7, 7), judged(0.1, 3, np.nan), labels("a", "a", "a"), now_ms=81_000)
    assert due(g, 89_999) == []
    assert due(g, 90_000) == [(7, {rate("p", job="a"): (2, 1)})]
    assert due(g, 99_999) == []


def test_that_a_step_is_over_is_told_once_with_or_without_series_and_for_steps_between() -> None:
    g = grouping()
    news = [g.tell_due(now_ms, 0).through for now_ms in (89_999, 90_000, 99_999, 155_000)]
    assert [[t.bucket for t in each] for each in news] == [[6], [7], [], [13]]


def test_a_step_that_is_late_waits_as_long_behind_its_first_series() -> None:
    g = grouping()
    g.count(at(0), at(7), judged(2), labels("a"), now_ms=500_000)
    assert due(g, 509_999) == []
    g.count(at(1), at(7), judged(0), labels("a", "a"), now_ms=509_999)
    (counts,) = g.tell_due(510_000, 0).counts
    assert told([counts]) == [(7, {rate("p", job="a"): (2, 1)})]
    assert counts.is_late


def test_a_late_step_waits_for_those_before_it_but_not_for_a_whole_history() -> None:
    g = grouping()
    g.count(at(0), at(31), judged(0), labels("a"), now_ms=515_000)
    g.count(at(0), at(30), judged(0), labels("a"), now_ms=516_000)
    assert [b for b, _ in due(g, 525_999)] == []
    assert [b for b, _ in due(g, 526_000)] == [30, 31]

    g = grouping()
    g.count(at(0), at(40), judged(0), labels("a"), now_ms=515_000)
    for i in range(30):
        g.count(at(0), at(i), judged(0), labels("a"), now_ms=516_000 + i * 1_000)
        if any(b == 40 for b, _ in due(g, 516_000 + i * 1_000)):
            break
    assert i == 19, "twice its wait after its first series"


def test_late_steps_do_not_hold_up_a_punctual_one() -> None:
    g = grouping()
    for second in range(60):
        g.count(at(0), at(second), judged(0), labels("a"), now_ms=500_000 + second * 1_000)
        if second == 15:
            g.count(at(1), at(50), judged(0), labels("a", "b"), now_ms=515_000)
        if any(b == 50 for b, _ in due(g, 500_000 + second * 1_000)):
            break
    assert second == 20, "at its end and the wait"


def test_what_a_tick_closes_is_not_older_than_the_samples_before_it() -> None:
    g = grouping()
    g.count(at(0), at(5), judged(0), labels("a"), now_ms=500_000)
    g.count(at(0), at(6), judged(0), labels("a"), now_ms=499_000)
    assert due(g, 509_500) == []
    assert [b for b, _ in due(g, 510_000)] == [5, 6]


def test_another_lateness_is_waited_for_from_then_on() -> None:
    g = grouping()
    g.count(at(0), at(7), judged(0), labels("a"), now_ms=81_000)
    g.wait_for(28)
    assert due(g, 109_999) == []
    assert [b for b, _ in due(g, 110_000)] == [7]


def test_steps_that_were_begun_before_are_not_counted() -> None:
    g = grouping(first=8)
    g.count(at(0, 1), at(7, 8), judged(0, 0), labels("a", "a"), 0)
    assert told(g.tell_all(0)) == [(8, {rate("p", job="a"): (1, 0)})]


def test_series_with_none_of_the_labels_are_in_no_group_and_with_some_in_one_of_those() -> None:
    g = grouping(("job", "zone"))
    blocks = [
        encode_labels(canonical([("__name__", "up"), *more.items()]))
        for more in ({}, {"job": "a"}, {"zone": "1"}, {"job": "a", "zone": "1"}, {"instance": "x"})
    ]
    g.count(at(0, 1, 2, 3, 4), at(0, 0, 0, 0, 0), judged(0, 0, 0, 0, 0), blocks, 0)
    (counts,) = g.tell_all(0)
    assert {counts.series.block(i) for i in range(len(counts.series))} == {
        rate("p", job="a"),
        rate("p", zone="1"),
        rate("p", job="a", zone="1"),
    }


def test_what_was_told_before_a_checkpoint_is_not_told_behind_it() -> None:
    g = grouping()
    g.count(at(0), at(7), judged(2), labels("a"), 81_000)
    (counts,) = g.tell_so_far(82_000, 0)
    assert told([counts]) == [(7, {rate("p", job="a"): (1, 1)})]
    assert (counts.due_in_ms, counts.is_late) == (8_000, False)
    assert g.tell_so_far(82_000, 5) == []
    g.count(at(1), at(7), judged(0), labels("a", "a"), 83_000)
    assert due(g, 90_000) == [(7, {rate("p", job="a"): (1, 0)})]


def test_of_a_step_that_was_told_more_is_told_with_what_was() -> None:
    g = grouping()
    g.count(at(0), at(7), judged(2), labels("a"), 81_000)
    assert len(due(g, 90_000)) == 1
    g.count(at(1), at(7), judged(0), labels("a", "a"), 91_000)
    assert due(g, 101_000) == [(7, {rate("p", job="a"): (2, 1)})], "of one part: the larger one holds"


def test_groups_without_series_make_room_also_for_those_that_found_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(groups, "MOST_GROUPS", 2)
    outcomes: Counter[str] = Counter()
    g = Grouping(drive.pipeline("p", group_by=("job",)), 16, outcomes)
    g.count(at(0, 1, 2), at(7, 7, 7), judged(2, 2, 2), labels("a", "b", "c"), 0)
    assert outcomes["ungrouped"] == 1
    g.reset(at(0))
    g.count(at(0, 1), at(7, 7), judged(0, 0), labels("d", "b"), 0)
    assert told(g.tell_all(0)) == [(7, {rate("p", job="b"): (2, 1), rate("p", job="d"): (1, 0)})]
    g.reset(at(0, 1))
    g.count(at(3), at(8), judged(0), labels("", "", "", "e"), 0)
    g.count(at(2), at(8), judged(0), labels("a", "b", "c"), 0)
    assert told(g.tell_all(0)) == [(8, {rate("p", job="e"): (1, 0), rate("p", job="c"): (1, 0)})]
    assert outcomes["ungrouped"] == 1


def test_history_that_comes_at_once_is_told_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "MOST_STEPS", 4)
    p = drive.partition(drive.pipeline("p", group_by=("job",), score={"warmup": 1, "block": 12}))
    counts: list[GroupCounts] = []
    for i in range(40):
        rows = [(f"s{n}@a", i * 10_000 + 1, float(i % 3)) for n in range(3)]
        counts += p.put(drive.frame(rows), i, 10**9).groups.counts
    assert [c.bucket for c in counts] == sorted(c.bucket for c in counts)
    assert len(counts) > 30
    assert all(c.is_late and c.scored.tolist() == [3] for c in counts)
    assert max(len(s.groups._steps) for b in p.blocks.values() for s in b.scorings if s.groups) <= 5


def test_a_lateness_of_many_steps_tells_none_of_them_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "MOST_STEPS", 4)
    g = Grouping(drive.pipeline("p", group_by=("job",), lateness_s=298), 16, Counter())
    for i in range(59):
        g.count(at(0), at(i), judged(0), labels("a"), i * 10_000)
        assert g.tell_overdue(0) == []
        assert [b for b, _ in due(g, i * 10_000)] == ([i - 31] if i >= 31 else [])


def test_groups_live_over_steps_that_are_longer_than_series_may_be_idle() -> None:
    p = drive.partition(drive.pipeline("p", group_by=("job",), step_s=3600))
    step_ms, share = 3_600_000, SeriesColumn.of([rate("p", job="a")])
    for i in range(6):
        now_ms = (i + 1) * step_ms
        frame = SampleFrame(
            share, np.zeros(1, np.uint32), np.array([now_ms - 1]), np.zeros(1), now_ms, of_groups=True
        )
        p.put(frame, i, now_ms)
        p.evict(now_ms + step_ms - 1, 600_000)
    assert p.share_outcomes["admitted"] == p.groups == 1


# -- parts of the run --------------------------------------------------------------------------


def closing(p: Partition, number: int, *samples: drive.Row) -> list[GroupCounts]:
    return p.put(drive.frame(samples), number, 0).groups.counts


def test_checkpoints_without_a_sample_between_them_are_of_different_parts() -> None:
    """Ticks close a series before the second one, and another behind it."""
    p = drive.partition(drive.pipeline("p", group_by=("job",), score={"warmup": 1, "block": 12}))
    p.seek(0, 0, 0, 0)
    counts: list[GroupCounts] = []
    for i in range(3):
        counts += closing(p, i, ("x@a", i * 10_000, 1.0), ("y@a", i * 10_000, 1.0))
    block = next(b for b in p.blocks.values() if not b.is_of_groups)
    block.state["deadline_ms"][drive.row_of(block, "y@a")] += 5_000
    for now_ms in (39_000, 40_000, 46_000, 80_000):
        counts += p.tick(now_ms).groups.counts
        counts += p.groups_so_far(now_ms).groups.counts
        p.checkpoint(now_ms)
    mine = {(c.part, int(c.scored[0])) for c in counts if c.bucket == 2 and len(c.series)}
    assert len({part for part, _ in mine}) == 2
    assert sum(scored for _, scored in mine) == 2


def test_a_torn_checkpoint_ends_a_part_all_the_same() -> None:
    """What closed before it is known by its pages; what closed behind it is told by who comes next."""
    of = [drive.pipeline("p", group_by=("job",), score={"warmup": 1, "block": 12})]

    def play(fuse: int) -> Play:
        events: list[Event] = []
        for i in range(6):
            rows = [(f"{name}@a", i * 10_000 + (3_000 if name == "y" else 0), 1.0) for name in "xy"]
            events += [Samples(drive.frame(rows[:1]).encode())]
            events += [CheckpointNow(i * 10_000 + 1)]
            events += [Samples(drive.frame(rows[1:]).encode())]
        return Play(of, [fuse] if fuse >= 0 else []).run([*events, TickNow(10**6), TickNow(2 * 10**6)])

    calm = play(-1)
    assert set(calm.broker.counted().values()) >= {(2, 0)}
    for fuse in range(calm.broker.writes):
        assert play(fuse).broker.counted() == calm.broker.counted(), fuse


def torn(before: Start, after: Start, sequence: int) -> pb.StatePage:
    return pb.StatePage(
        version=1,
        sequence=sequence,
        part_before=pb.Mark(**before._asdict()),
        part=pb.Mark(**after._asdict()),
    )


def test_a_repeated_part_goes_on_over_checkpoints_until_it_comes_to_its_end() -> None:
    parts, before, after = Parts(), Start(3, 10), Start(9, 50)
    parts.restore(torn(Start(0, 0), before, 1))
    parts.restore(torn(before, after, 2))
    parts.restore(torn(Start(0, 0), before, 1))
    parts.begin(3)
    assert (parts.now, parts.end) == (before, after)
    assert parts.at_checkpoint(5, 20) == (before, after)
    assert [parts.ends_before(*at) for at in ((5, 20), (9, 0), (9, 50), (9, 51), (10, 0))] == [
        False, False, False, True, True,
    ]  # fmt: skip
    parts.next()
    assert parts.at_checkpoint(12, 60) == (after, Start(12, 60))
    assert not parts.ends_before(99, 99)


def test_before_its_end_nothing_is_told_at_a_checkpoint_since_more_of_the_part_may_come() -> None:
    p = drive.partition(drive.pipeline("p", group_by=("job",), score={"warmup": 1, "block": 12}))
    p._groups.parts.restore(torn(Start(0, 0), Start(4, 0), 1))
    p.seek(0, 0, 0, 0)
    for i in range(4):
        closing(p, i, ("x@a", i * 10_000, 1.0))
    assert not p.groups_so_far(0)
    p.checkpoint(0)
    (counts,) = [c for c in closing(p, 4, ("x@a", 40_000, 1.0)) if c.bucket == 2]
    assert (counts.part, counts.scored.tolist()) == (Start(0, 0).uid, [1])
    assert p.groups_so_far(0).groups.counts[0].part == Start(4, 0).uid


# -- on the broker -----------------------------------------------------------------------------


def some_counts(jobs: int) -> GroupCounts:
    g = Grouping(drive.pipeline("p", group_by=("job",)), jobs, Counter())
    n = np.arange(jobs)
    g.count(n, np.full(jobs, 7), judged(*(2.0 * (n % 2))), labels(*(f"job-{i:0100d}" for i in n)), 0)
    (counts,) = g.tell_all(3)
    return counts


THROUGH = [Through("p", 10_000, 7), Through("q", 1_000, -3)]


def decoded(frame: GroupFrame) -> list[GroupFrame]:
    return [GroupFrame.decode(record) for record in frame.records()]


def test_a_frame_comes_back_as_it_was() -> None:
    counts = replace(some_counts(5), due_in_ms=77, is_late=True)
    (back,) = decoded(GroupFrame(2, [counts, counts], THROUGH))
    assert (back.partition, back.through) == (2, THROUGH)
    for c in back.counts:
        assert told([c]) == told([counts])
        assert (c.pipeline, c.step_ms, c.part, c.due_in_ms, c.is_late) == ("p", 10_000, 3, 77, True)


@pytest.mark.parametrize("owners", [1, 3, 64])
def test_every_owner_is_told_of_its_groups(owners: int) -> None:
    counts = some_counts(20)
    found = by_owner([counts, counts], owners)
    for number, mine in found.items():
        assert len(mine) == 2
        assert all((partition_of(c.series.ids, owners) == number).all() for c in mine)
    both = {block: said for mine in found.values() for _, each in told(mine) for block, said in each.items()}
    assert both == told([counts])[0][1]


def test_a_frame_that_is_too_long_is_several_and_the_last_one_says_what_is_over() -> None:
    counts = some_counts(9_000)
    frames = decoded(GroupFrame(0, [counts, counts], THROUGH))
    assert len(frames) > 2
    assert [frame.through for frame in frames] == [[]] * (len(frames) - 1) + [THROUGH]
    pieces = [c for frame in frames for c in frame.counts]
    assert sum(int(c.scored.sum()) for c in pieces) == 18_000


def test_what_is_over_can_be_told_alone_and_is_made_once_for_all_owners() -> None:
    end = encode_through(THROUGH)
    (record,) = GroupFrame(4, []).records(end)
    assert GroupFrame.decode(record) == GroupFrame(4, [], THROUGH)


def test_counts_that_cannot_be_read_are_refused() -> None:
    counts = some_counts(3)
    none = replace(counts, scored=np.zeros(3, np.uint32))
    for wrong, words in (
        (replace(counts, scored=counts.scored[:2]), "scored series"),
        (replace(counts, step_ms=0), "step of 0"),
        (none, "without series"),
    ):
        with pytest.raises(MalformedFrameError, match=words):
            decoded(GroupFrame(0, [wrong]))
