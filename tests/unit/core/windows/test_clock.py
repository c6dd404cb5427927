"""The clock of a worker may be set; due work is spread over time."""

from unit.core.windows import drive

STEP_MS = 10_000
START_MS = 1_700_000_000_000
HOUR_MS = 3_600_000


def test_a_clock_that_is_set_back_cuts_no_step_short() -> None:
    partition = drive.partition()
    (block,) = partition.blocks.values()
    partition.tick(START_MS + HOUR_MS)  # an hour fast, and then put right
    out = []
    for i in range(40):  # four samples a step, a tick behind each
        at_ms = START_MS + i * STEP_MS // 4
        out += drive.steps(block, partition.put(drive.frame([("m", at_ms, i % 4)], at_ms), i, at_ms))
        out += drive.steps(block, partition.tick(at_ms + 1))
    assert [value for _, _, value in out] == [1.5] * 9
    assert block.counts["accepted"] == 40
    assert block.counts["late"] == 0

    assert len(drive.steps(block, partition.tick(START_MS + HOUR_MS + 1))) == 1


def test_due_series_are_spread_over_the_steps() -> None:
    every, series = 16, 640
    partition = drive.partition(drive.pipeline(forecast_every=every, horizon=64))
    due = []
    for i in range(2 * every + 3):
        at_ms = START_MS + i * STEP_MS
        frame = drive.frame([(f"m{n}", at_ms, float(n)) for n in range(series)], at_ms)
        due.append([r for f in partition.put(frame, i, at_ms).due for r in f.row.tolist()])
    for first in (3, 3 + every):
        period = due[first : first + every]
        assert sorted(r for rows in period for r in rows) == list(range(series))  # each once
        assert max(map(len, period)) < 2 * series / every
