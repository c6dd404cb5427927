"""Shares of groups: when a step is settled, what is added up, and in which order."""

import numpy as np
import pytest

from openanomaly.core.fields import MOST_BYTES
from openanomaly.core.frames import SampleFrame
from openanomaly.core.group_frames import GroupCounts, Through
from openanomaly.core.series import encode_labels
from openanomaly.core.series_column import SeriesColumn
from openanomaly.core.services import shares as module
from openanomaly.core.services.shares import WAIT_MS, Settled, Shares, of_one, records

Said = dict[str, tuple[int, int]]
"""By job: how many have a score, and are in an episode."""


def counts(
    bucket: int, said: Said, part: int = 0, *, due_in_ms: int = 0, is_late: bool = False, pipeline: str = "p"
) -> GroupCounts:
    blocks = [encode_labels((("__name__", "anomaly_rate"), ("job", job))) for job in said]
    both = np.array(list(said.values()), np.uint32).reshape(-1, 2)
    series = SeriesColumn.of(blocks)
    return GroupCounts(pipeline, 1000, bucket, part, due_in_ms, is_late, series, both[:, 0], both[:, 1])


def passed(shares: Shares[str], bucket: int, *partitions: int, pipeline: str = "p") -> None:
    for partition in partitions:
        shares.pass_through(partition, Through(pipeline, 1000, bucket))


def found(settled: list[Settled[str]]) -> list[tuple[int, dict[str, float]]]:
    """By step: the time of its samples, and the share of each job."""
    out = []
    for each in settled:
        if (frame := each.frame) is None:
            out.append((-1, {}))
            continue
        assert frame.of_groups
        (ms,) = set(frame.timestamp_ms.tolist())
        names = [frame.series.block(i)[-1:].decode() for i in frame.row.tolist()]
        out.append((ms, dict(zip(names, frame.value.tolist(), strict=True))))
    return out


def test_a_step_is_settled_when_every_partition_is_through_it() -> None:
    shares: Shares[str] = Shares(3)
    shares.take(0, counts(5, {"a": (10, 1)}), 0, "0")
    shares.take(1, counts(5, {"a": (10, 4), "b": (8, 8)}), 1, "1")
    passed(shares, 5, 0, 1)
    passed(shares, 4, 2)
    assert list(shares.settle(WAIT_MS)) == []
    passed(shares, 6, 2)
    settled = list(shares.settle(2))
    assert found(settled) == [(5_999, {"a": 0.25, "b": 1.0})]
    assert settled[0].tokens == ["0", "1"]
    assert (settled[0].missing, settled[0].late, len(shares)) == (frozenset(), 0, 0)


def test_or_has_waited_long_enough_and_who_is_missing_is_said() -> None:
    shares: Shares[str] = Shares(3)
    shares.take(0, counts(5, {"a": (10, 1)}), 100, "0")
    passed(shares, 5, 0)
    assert list(shares.settle(100 + WAIT_MS - 1)) == []
    settled = list(shares.settle(100 + WAIT_MS))
    assert found(settled) == [(5_999, {"a": 0.1})]
    assert settled[0].missing == {1, 2}


def test_what_is_told_before_the_step_is_over_does_not_begin_the_wait() -> None:
    """As at a checkpoint, shortly behind the end of the step."""
    shares: Shares[str] = Shares(2)
    shares.take(0, counts(5, {"a": (5, 5)}, due_in_ms=8_000), 0, "0")
    assert list(shares.settle(8_000 + WAIT_MS - 1)) == []
    shares.take(0, counts(5, {"a": (5, 0)}, part=1), 8_100, "1")
    shares.take(1, counts(5, {"a": (10, 0)}), 8_200, "2")
    passed(shares, 5, 0, 1)
    assert found(list(shares.settle(8_200))) == [(5_999, {"a": 0.25})]


def test_a_late_step_waits_for_the_others_part_of_it_and_misses_nobody() -> None:
    shares: Shares[str] = Shares(2)
    passed(shares, 500, 0, 1)
    shares.take(0, counts(5, {"a": (10, 1)}, is_late=True), 100, "0")
    shares.take(1, counts(5, {"a": (10, 3)}, is_late=True), 200, "1")
    assert list(shares.settle(200 + WAIT_MS - 1)) == []
    settled = list(shares.settle(200 + WAIT_MS))
    assert found(settled) == [(5_999, {"a": 0.2})]
    assert settled[0].missing == frozenset()


def test_it_holds_up_late_steps_behind_it_for_a_while_and_punctual_ones_not_at_all() -> None:
    shares: Shares[str] = Shares(2)
    shares.take(0, counts(6, {"a": (10, 0)}, is_late=True), 0, "0")
    shares.take(0, counts(5, {"a": (10, 10)}, is_late=True), 2_000, "1")
    shares.take(0, counts(400, {"b": (10, 1)}), 2_000, "2")
    passed(shares, 400, 0, 1)
    assert found(list(shares.settle(2_000))) == [(400_999, {"b": 0.1})]
    assert list(shares.settle(WAIT_MS + 1_999)) == []
    assert found(list(shares.settle(WAIT_MS + 2_000))) == [(5_999, {"a": 1.0}), (6_999, {"a": 0.0})]

    shares.take(0, counts(8, {"a": (10, 0)}, is_late=True), 20_000, "0")
    shares.take(0, counts(7, {"a": (10, 10)}, is_late=True), 20_000 + 3 * WAIT_MS - 1, "1")
    assert found(list(shares.settle(20_000 + 3 * WAIT_MS))) == [(8_999, {"a": 0.0})]


def test_counts_of_a_part_that_are_told_again_are_those_and_of_other_parts_more() -> None:
    shares: Shares[str] = Shares(1)
    for part, said in ((0, (6, 3)), (9, (4, 1)), (0, (6, 3)), (9, (1, 1))):
        # After a crash: a part from its start, and one that began in its middle.
        shares.take(0, counts(5, {"a": said}, part=part), 0, "0")
    passed(shares, 5, 0)
    assert found(list(shares.settle(0))) == [(5_999, {"a": 0.4})]


def test_what_comes_behind_a_newer_share_of_its_group_is_late_and_that_of_another_is_not() -> None:
    shares: Shares[str] = Shares(1)
    passed(shares, 9, 0)
    shares.take(0, counts(9, {"a": (10, 5)}), 0, "0")
    assert len(list(shares.settle(0))) == 1
    shares.take(0, counts(9, {"a": (10, 10)}), 0, "1")
    shares.take(0, counts(4, {"a": (10, 10), "b": (8, 2)}), 0, "2")
    settled = list(shares.settle(0))
    assert found(settled) == [(4_999, {"b": 0.25}), (-1, {})]
    assert [t.late for t in settled] == [1, 1]
    assert [t.tokens for t in settled] == [["2"], ["1"]]


def test_a_group_of_few_series_has_none() -> None:
    shares: Shares[str] = Shares(2)
    shares.take(0, counts(5, {"a": (4, 4), "b": (3, 3)}), 0, "0")
    shares.take(1, counts(5, {"b": (2, 2)}), 0, "1")
    passed(shares, 5, 0, 1)
    settled = list(shares.settle(0))
    assert found(settled) == [(5_999, {"b": 1.0})]
    assert settled[0].small == 1


def test_where_too_much_waits_what_has_waited_longest_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 3)
    shares: Shares[str] = Shares(2)
    for i, pipeline in enumerate(("z", "y", "a", "b", "c")):
        shares.take(0, counts(7, {"a": (9, 1)}, pipeline=pipeline), i, pipeline)
    assert sorted(t.pipeline for t in shares.settle(5)) == ["y", "z"]
    assert len(shares) == 3


def test_what_waits_can_be_forgotten() -> None:
    shares: Shares[str] = Shares(2)
    shares.take(0, counts(5, {"a": (9, 1)}), 0, "0")
    shares.clear()
    assert list(shares.settle(10 * WAIT_MS)) == []
    assert len(shares) == 0


def test_a_lone_partition_s_steps_are_settled_at_once_and_in_their_order() -> None:
    told = [counts(6, {"a": (10, 1)}, is_late=True), counts(5, {"a": (10, 2)}, due_in_ms=99)]
    frames = list(of_one(told, 42))
    assert [(f.timestamp_ms.tolist(), f.value.tolist(), f.received_ms) for f in frames] == [
        ([5_999], [0.2], 42),
        ([6_999], [0.1], 42),
    ]


def test_shares_that_are_too_many_for_a_record_are_several() -> None:
    told = counts(5, {f"{i:0300d}": (9, i % 9) for i in range(6_000)})
    (frame,) = of_one([told], 0)
    pieces = [SampleFrame.decode(record) for record in records(frame)]
    assert len(pieces) > 1
    assert all(len(record) <= MOST_BYTES for record in records(frame))
    assert np.concatenate([p.series.ids for p in pieces]).tolist() == frame.series.ids.tolist()
    assert np.concatenate([p.value for p in pieces]).tolist() == frame.value.tolist()
    assert all(p.of_groups and p.row.tolist() == list(range(len(p.series))) for p in pieces)
