"""Shares of groups: when a step is settled, what is added up, and in which order."""

import numpy as np
import pytest

from openanomaly.core.group_frames import GroupCounts
from openanomaly.core.series import encode_labels
from openanomaly.core.series_column import SeriesColumn
from openanomaly.core.services import rates as module
from openanomaly.core.services.rates import WAIT_MS, Rates, Told


def counts(
    bucket: int,
    said: dict[str, tuple[int, int]],
    part: int = 0,
    *,
    is_final: bool = True,
    pipeline: str = "p",
) -> GroupCounts:
    """`said` is by job: how many have a score, and are in an episode."""
    blocks = [encode_labels((("__name__", "anomaly_rate"), ("job", job))) for job in said]
    both = np.array(list(said.values()), np.uint32).reshape(-1, 2)
    return GroupCounts(
        pipeline, 1000, bucket, part, is_final, SeriesColumn.of(blocks), both[:, 0], both[:, 1]
    )


def shares(told: list[Told[str]]) -> list[tuple[int, dict[str, float]]]:
    """By step: the time of its samples, and the share of each job."""
    out = []
    for each in told:
        if (frame := each.frame) is None:
            out.append((-1, {}))
            continue
        assert frame.of_groups
        (ms,) = set(frame.timestamp_ms.tolist())
        names = [frame.series.block(i)[-1:].decode() for i in frame.row.tolist()]
        out.append((ms, dict(zip(names, frame.value.tolist(), strict=True))))
    return out


def test_a_step_is_settled_when_every_partition_has_told_of_it() -> None:
    rates: Rates[str] = Rates(3)
    rates.take(0, counts(5, {"a": (10, 1)}), 0, "0")
    rates.take(1, counts(5, {"a": (10, 4), "b": (2, 2)}), 1, "1")
    assert list(rates.ready(WAIT_MS - 1)) == []
    rates.take(2, counts(5, {}), 2, "2")
    told = list(rates.ready(2))
    assert shares(told) == [(5_999, {"a": 0.25, "b": 1.0})]
    assert told[0].tokens == ["0", "1", "2"]
    assert (told[0].missing, told[0].late) == (frozenset(), 0)
    assert len(rates) == 0


def test_or_has_waited_long_enough_and_who_is_missing_is_said() -> None:
    rates: Rates[str] = Rates(3)
    rates.take(0, counts(5, {"a": (10, 1)}), 100, "0")
    rates.take(1, counts(5, {"a": (10, 1)}, is_final=False), 100, "1")
    assert list(rates.ready(100 + WAIT_MS - 1)) == []
    told = list(rates.ready(100 + WAIT_MS))
    assert shares(told) == [(5_999, {"a": 0.1})]
    assert told[0].missing == {1, 2}


def test_counts_of_a_part_that_are_told_again_are_those_and_of_other_parts_more() -> None:
    rates: Rates[str] = Rates(1)
    rates.take(0, counts(5, {"a": (6, 3)}, part=0, is_final=False), 0, "0")
    rates.take(0, counts(5, {"a": (4, 1)}, part=9), 0, "1")
    # After a crash: a part from its start, and one that began in its middle.
    rates.take(0, counts(5, {"a": (6, 3)}, part=0, is_final=False), 0, "2")
    rates.take(0, counts(5, {"a": (1, 1)}, part=9), 0, "3")
    assert shares(list(rates.ready(0))) == [(5_999, {"a": 0.4})]


def test_a_complete_step_waits_for_those_before_it_of_its_pipeline() -> None:
    rates: Rates[str] = Rates(2)
    rates.take(0, counts(5, {"a": (1, 1)}), 0, "0")
    for partition in (0, 1):
        rates.take(partition, counts(6, {"a": (1, 0)}), 10, "1")
        rates.take(partition, counts(3, {"b": (1, 0)}, pipeline="q"), 10, "2")
    assert shares(list(rates.ready(10))) == [(3_999, {"b": 0.0})]
    assert shares(list(rates.ready(WAIT_MS))) == [(5_999, {"a": 1.0}), (6_999, {"a": 0.0})]


def test_but_not_for_ever() -> None:
    rates: Rates[str] = Rates(1)
    rates.take(0, counts(6, {"a": (1, 0)}), 0, "0")
    rates.take(0, counts(5, {"a": (1, 1)}, is_final=False), WAIT_MS + 1, "1")
    assert list(rates.ready(2 * WAIT_MS - 1)) == []
    assert shares(list(rates.ready(2 * WAIT_MS))) == [(6_999, {"a": 0.0})]


def test_what_comes_behind_a_newer_share_of_its_group_is_late_and_that_of_another_is_not() -> None:
    rates: Rates[str] = Rates(1)
    rates.take(0, counts(9, {"a": (2, 1)}), 0, "0")
    assert len(list(rates.ready(0))) == 1
    rates.take(0, counts(9, {"a": (2, 2)}), 0, "1")
    rates.take(0, counts(4, {"a": (2, 2), "b": (4, 1)}), 0, "2")
    told = list(rates.ready(0))
    assert shares(told) == [(4_999, {"b": 0.25}), (-1, {})]
    assert [t.late for t in told] == [1, 1]
    assert [t.tokens for t in told] == [["2"], ["1"]]


def test_steps_without_groups_are_settled_too() -> None:
    rates: Rates[str] = Rates(1)
    rates.take(0, counts(9, {}), 0, "0")
    (told,) = rates.ready(0)
    assert (told.frame, told.tokens) == (None, ["0"])


def test_no_more_than_so_many_steps_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 3)
    rates: Rates[str] = Rates(2)
    for bucket in range(5):
        rates.take(0, counts(bucket, {"a": (1, 1)}), 0, str(bucket))
    assert [t.tokens for t in rates.ready(0)] == [["0"], ["1"]]
    assert len(rates) == 3


def test_what_waits_can_be_forgotten() -> None:
    rates: Rates[str] = Rates(2)
    rates.take(0, counts(5, {"a": (1, 1)}), 0, "0")
    rates.clear()
    assert list(rates.ready(10 * WAIT_MS)) == []
