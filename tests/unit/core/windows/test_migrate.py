"""Series that move to other partitions go on as if they had stayed."""

import functools
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openanomaly.core import kernels
from openanomaly.core.frames import DueFrame, SampleFrame
from openanomaly.core.series import partition_of
from openanomaly.core.windows import migrate, records
from openanomaly.core.windows.partition import Partition
from openanomaly.errors import BrokerError, UnknownVersionError
from openanomaly.pb.openanomaly.v1 import changelog_pb2 as pb
from unit.core.windows import drive, scenario
from unit.core.windows.fleet import Fleet
from unit.core.windows.world import Broker, Event, Infer, Play, differing

SEEDS = (2, 4, 6)
COUNTS = st.integers(1, 5)


@pytest.fixture(scope="module", autouse=True)
def each_way() -> Iterator[None]:
    """Compiled every other life, as far as it is installed: both ways give the same bits."""
    kernels.warm_up()
    if not kernels.WINDOWS.ready():
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        for stage in (kernels, kernels.WINDOWS):
            patch.setattr(stage, "ready", lambda: Play.begun % 2 == 0)
        yield


@functools.cache
def events(seed: int) -> tuple[Event, ...]:
    # The model answers all that was asked: how many frames that is depends on the partitions.
    return tuple(Infer() if isinstance(e, Infer) else e for e in scenario.events(seed, steps=60))


@functools.cache
def stayed(seed: int) -> Fleet:
    return Fleet(scenario.pipelines(), [Broker()]).run(events(seed))


def same_as_stayed(seed: int, before: Fleet, after: Fleet) -> None:
    expected = stayed(seed)
    said = before.said()
    for key, verdict in after.said().items():
        assert said.setdefault(key, verdict) == verdict, key
    assert not differing(said, expected.said())
    found, known = after.known(), expected.known()
    assert found.keys() == known.keys()
    columns = [(series, name) for series in known for name in differing(found[series], known[series])]
    assert not columns, columns[:5]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.sampled_from(SEEDS),
    counts=st.tuples(COUNTS, COUNTS),
    when=st.floats(0, 0.99),
    fuse=st.integers(0, 12),
)
def test_nothing_is_other_than_it_would_have_been(
    seed: int, counts: tuple[int, int], when: float, fuse: int
) -> None:
    """Workers are lost at some write of some event, or not; what they leave moves, and goes on."""
    todo = events(seed)
    cut = int(when * len(todo))
    before = Fleet(scenario.pipelines(), [Broker() for _ in range(counts[0])]).run(todo[:cut])
    before.lose(todo[cut], fuse)

    after = before.moved(counts[1])
    after.again(todo[cut])
    after.run(todo[cut + 1 :])

    same_as_stayed(seed, before, after)


@settings(max_examples=10, deadline=None)
@given(seed=st.sampled_from(SEEDS), counts=st.lists(COUNTS, min_size=3, max_size=4))
def test_a_fleet_may_move_more_than_once(seed: int, counts: list[int]) -> None:
    todo = events(seed)
    part = len(todo) // len(counts)
    fleet = Fleet(scenario.pipelines(), [Broker() for _ in range(counts[0])])
    said: dict[object, object] = {}
    for i, count in enumerate(counts):
        fleet = fleet.moved(count)
        fleet.run(todo[i * part : (i + 1) * part if i + 1 < len(counts) else None])
        said |= fleet.said()

    assert not differing(said, stayed(seed).said())
    assert fleet.known() == stayed(seed).known()


def test_the_fleet_has_what_it_should() -> None:
    fleet = stayed(SEEDS[0])
    (part,) = fleet.parts
    generations = [int(b.catalogue.generation[: b.rows].max()) for b in part.partition.blocks.values()]

    assert len(fleet.said()) > 400
    assert max(generations) > 1
    assert len(part.broker.forecasts) > 20
    assert len({uid for uid, _ in fleet.known()}) == 2


@pytest.mark.parametrize("counts", [(3, 2), (1, 4)])
def test_what_comes_in_is_in_windows_or_dropped_by_reason(counts: tuple[int, int]) -> None:
    todo = events(4)
    before = Fleet(scenario.pipelines(), [Broker() for _ in range(counts[0])]).run(todo[:200])
    after = before.moved(counts[1]).run(todo[200:])

    for fleet in (before, after):
        for part in fleet.parts:
            sent = sum(SampleFrame.decode(frame).row.size for frame in part.broker.samples)
            for block in part.partition.blocks.values():
                assert block.counts["accepted"] + drive.dropped(block.counts) == block.counts["in"] == sent
    accepted = sum(p.partition.counts["accepted"] for f in (before, after) for p in f.parts)
    assert accepted == stayed(4).parts[0].partition.counts["accepted"]


def test_a_run_passes_over_what_its_worker_passed_over() -> None:
    """A frame that nobody can read, one that was set aside, and one that is no longer there."""
    sent = [drive.frame([("a", i * 10_000, float(i))]).encode() for i in range(6)]
    sent[1] = b"\xff odd"
    partition, ring, state = drive.partition(), [], []
    for offset, value in enumerate(sent):
        if offset in (1, 2):
            partition.skip("samples", offset)
        elif offset < 5:
            out = partition.put(SampleFrame.decode(value), offset, 0)
            ring, state = ring + out.ring, state + out.catalogue
    partition.skip("samples", 5)
    out = partition.put(drive.frame([("a", 60_000, 6.0)]), 6, 0)

    def again() -> tuple[Partition, migrate.Repeat]:
        found = drive.fresh()
        for record in (*ring, *out.ring, *state):
            found.restore(record.key, record.value)
        found.start()
        found.seek(0, 0, 7, 0)
        return found, migrate.Repeat(found)

    found, run = again()
    assert run.end == 7
    for offset in range(5):
        assert run.wants() == "samples"
        run.give("samples", offset, None if offset == 2 else sent[offset], 0, 0)
    assert (found.position.samples, run.wants()) == (5, "samples")
    run.lacks("samples", 0)

    assert (found.position.samples, run.wants()) == (7, None)
    (block,) = found.blocks.values()
    row = np.array([0])
    assert block.state["last_ms"][0] == 40_000
    window = block.ring.windows(row, np.array([4]), block.catalogue.born[row], 5)
    np.testing.assert_array_equal(window, [[0, np.nan, np.nan, 3, 4]])


def test_rows_are_dense_and_where_their_ids_belong() -> None:
    fleet = stayed(2)
    after = fleet.moved(3)

    assert after.series == fleet.series
    for number, part in enumerate(after.parts):
        for block in part.partition.blocks.values():
            assert block.rows == block.catalogue.live
            assert (partition_of(block.catalogue.ids[: block.rows], 3) == number).all()


def test_steps_of_rows_that_have_been_silent_for_longer_than_a_window() -> None:
    partition = drive.partition()
    for i, name in [(0, "old"), (1, "old"), (3, "old"), (500, "new"), (501, "new"), (502, "new")]:
        partition.put(drive.frame([(name, i * 10_000, float(i))]), i, 0)
    found = drive.fresh()
    for record in (*migrate.catalogue_records(_moved(partition)), *migrate.ring_records(_moved(partition))):
        found.restore(record.key, record.value)
    found.start()
    (block,) = found.blocks.values()
    rows = np.array([drive.row_of(block, "old"), drive.row_of(block, "new")])

    window = block.ring.windows(rows, np.array([1, 501]), block.catalogue.born[rows], 3)

    np.testing.assert_array_equal(window, [[np.nan, 0, 1], [np.nan, 500, 501]])


def test_windows_that_are_full_move_whole() -> None:
    """Of rows that go together, lag behind, have gaps, have just begun, or are silent."""
    partition = drive.partition()
    last = {"dense": 200, "behind": 180, "gaps": 200, "young": 200, "silent": 120}
    for i in range(200):
        names = [name for name, stop in last.items() if i < stop]
        names = [n for n in names if not (n == "gaps" and i % 7 == 3) and not (n == "young" and i < 190)]
        partition.put(drive.frame([(name, i * 10_000, i + len(name) / 8) for name in names]), i, 0)
    found = drive.fresh()
    target = _moved(partition)
    for record in (*migrate.catalogue_records(target), *migrate.ring_records(target)):
        found.restore(record.key, record.value)
    found.start()
    (before,), (after,) = partition.blocks.values(), found.blocks.values()

    for name in last:
        rows = np.array([drive.row_of(before, name)]), np.array([drive.row_of(after, name)])
        end = before.state["closed"][rows[0]]
        windows = [
            b.ring.windows(r, end, b.catalogue.born[r]) for b, r in zip((before, after), rows, strict=True)
        ]
        np.testing.assert_array_equal(windows[1], windows[0])
        assert before.ring.newest[rows[0]] == after.ring.newest[rows[1]]
        if name in ("dense", "behind", "silent"):
            assert np.isfinite(windows[0]).all()


def _moved(source: Partition) -> Partition:
    target = drive.fresh()
    migrate.move(source, target, 1, {uid: migrate.Places(b) for uid, b in source.blocks.items()})
    return target


def test_frames_are_split_into_what_each_partition_has_of_them() -> None:
    names = [f"series_{i}" for i in range(40)]
    samples = [(name, 1000 * i, float(i)) for i in range(3) for name in names]
    frame = drive.frame(samples, received_ms=7)

    found = dict(migrate.split_samples(frame, 4))

    assert set(found) == {0, 1, 2, 3}
    again = [
        (part.series.block(int(row)), int(t), float(v))
        for part in (SampleFrame.decode(x.encode(compress=True)) for x in found.values())
        for row, t, v in zip(part.row, part.timestamp_ms, part.value, strict=True)
    ]
    assert sorted(again) == sorted((drive.label_block(name), t, v) for name, t, v in samples)
    assert all((partition_of(part.series.ids, 4) == number).all() for number, part in found.items())
    assert {part.received_ms for part in found.values()} == {7}
    bare = drive.unlabelled(frame)
    assert not any(part.series.has_labels.any() for _, part in migrate.split_samples(bare, 4))


def test_contexts_of_former_owners_do_not_move() -> None:
    partition = drive.partition()
    names = ["a", "b", "c"]
    for i in range(12):
        partition.put(drive.frame([(name, i * 10_000, float(i)) for name in names]), i, 0)
    (block,) = partition.blocks.values()
    places = {block.uid: migrate.Places(block)}
    migrate.move(partition, target := drive.fresh(), 1, places)
    places[block.uid].generation[1] += 1
    asked: list[DueFrame] = []
    for i in range(12, 18):
        asked += partition.put(drive.frame([(name, i * 10_000, 1.0) for name in names]), i, 0).due
    assert {int(row) for due in asked for row in due.row} == {0, 1, 2}

    moved = [again for due in asked for again in migrate.split_due(due, places[block.uid])]

    assert {int(row) for due in moved for row in due.row} == {0, 2}
    assert {due.partition for due in moved} == {target.number}


def test_a_partition_does_not_start_with_a_part_of_its_state() -> None:
    partition = drive.fresh()
    partition.restore(*records.move_record("embedded://data", is_complete=False))
    with pytest.raises(BrokerError, match=r"embedded://data.*openanomaly migrate"):
        partition.start()
    partition.restore(*records.move_record("embedded://data", is_complete=True))
    partition.start()


def test_a_record_of_a_newer_release_is_refused() -> None:
    later = pb.Move(version=records.STEP_VERSION + 1, source="x").SerializeToString()
    with pytest.raises(UnknownVersionError, match="version 2, this release reads up to 1"):
        drive.fresh().restore(records.key(records.MOVE, 0, 0), later)


def test_what_no_pipeline_asks_for_is_told() -> None:
    kept, gone = drive.pipeline("kept"), drive.pipeline("gone", step_s=20)
    beside = drive.pipeline("beside")
    partition = drive.partition(kept, gone, beside)
    out = partition.put(drive.frame([("a", 0, 1.0), ("b", 0, 1.0)]), 0, 0)
    pages = {records.read_key(r.key)[1]: r.value for r in out.catalogue}
    states = {records.read_key(r.key)[1]: r.value for r in partition.checkpoint(0).records}
    (block,) = drive.fresh(kept).blocks.values()

    stranger = migrate.Stranger.of(next(v for uid, v in pages.items() if uid != block.uid))

    assert stranger.series == 2
    assert "20000" in stranger.specification
    uids = {s.pipeline.name: s.pipeline.uid for s in partition.blocks[block.uid].scorings}
    assert migrate.unknown_scorers(states[block.uid], block.plan) == {uids["beside"]}
