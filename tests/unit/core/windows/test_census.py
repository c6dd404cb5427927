"""How the series of a pipeline stand, told once a step: also after a restart."""

import numpy as np
import pytest

from openanomaly.core.census import Census
from openanomaly.core.frames import ScoreFrame
from openanomaly.core.windows.output import Emit
from openanomaly.core.windows.partition import Partition
from unit.core.windows import drive

STEP_MS, START_MS = 10_000, 1_700_000_000_000


def run(partition: Partition, steps: range, names: int = 4, emit: Emit = "all") -> list[Census]:
    """A sample of each series a step, and a tick behind them; what is told after each."""
    out = []
    partition.emit = emit
    for step in steps:
        at_ms = START_MS + step * STEP_MS
        rows = [(f"m{i}", at_ms, float((step * (i + 1)) % 7)) for i in range(names)]
        partition.put(drive.frame(rows, at_ms), step, at_ms)
        for frame in partition.census(at_ms):
            again = ScoreFrame.decode(frame.encode())
            assert (again.pipeline, again.step_ms, len(again.row)) == ("p", STEP_MS, 0)
            assert again.census is not None
            out.append(again.census)
    return out


@pytest.mark.parametrize("emit", ["all", "episodes"])
def test_series_warm_up_and_are_judged(emit: Emit) -> None:
    told = run(drive.partition(), range(6), emit=emit)
    assert [c.series for c in told] == [4] * 6
    assert [c.judged for c in told] == [0, 0, 0, 4, 4, 4]
    assert [c.steps_left for c in told] == [3, 2, 1, 0, 0, 0]
    assert [c.closed for c in told] == [0, 4, 4, 4, 4, 4]
    assert [c.unforecast for c in told] == [c.judged for c in told]  # nobody forecasts here
    assert [c.newest_ms for c in told[1:]] == [START_MS + n * STEP_MS for n in range(1, 6)]
    assert {c.emits_all for c in told} == {emit == "all"}


def test_a_worker_that_goes_on_from_its_state_tells_at_once_that_series_are_judged() -> None:
    before, records = drive.partition(), []
    for step in range(8):
        at_ms = START_MS + step * STEP_MS
        out = before.put(drive.frame([("m0", at_ms, 1.0)], at_ms), step, at_ms)
        records += out.catalogue + out.ring
    records += before.checkpoint(START_MS + 8 * STEP_MS).records
    after = drive.fresh()
    for record in records:
        after.restore(record.key, record.value)
    after.start()
    [frame] = after.census(START_MS + 3_600_000)
    assert frame.census is not None
    assert (frame.census.series, frame.census.judged, frame.census.closed) == (1, 1, 0)


def test_without_news_it_is_told_now_and_then_and_with_news_once_a_step() -> None:
    partition = drive.partition()
    run(partition, range(6))
    at_ms = START_MS + 5 * STEP_MS
    assert partition.census(at_ms + STEP_MS) == []
    assert [f.census.closed for f in partition.census(at_ms + 300_000) if f.census] == [0]
    partition.tick(at_ms + 300_001)
    assert partition.census(at_ms + 300_001) == []
    assert [f.census.closed for f in partition.census(at_ms + 310_000) if f.census] == [4]
    assert len(partition.census(at_ms)) == 1  # the clock was set back


def test_series_that_send_no_more_are_not_counted() -> None:
    partition = drive.partition()
    run(partition, range(10))
    assert run(partition, range(10, 40), names=2)[-1].series == 2


def test_a_frame_without_a_census_is_as_before() -> None:
    frame = ScoreFrame.of_census("p", STEP_MS, Census(1, 1, 0, 0, 1, 1, True), 5)
    assert frame.take(np.zeros(0, np.int64)).encode() == frame.encode()
