"""Row state of whole pages, where a column that is the same in all rows is written once."""

import numpy as np
import pytest

from openanomaly.core.windows.partition import Partition
from openanomaly.core.windows.rows import STATE_PAGE
from openanomaly.core.windows.state_pages import state_columns
from unit.core.windows import drive

SERIES = 2 * STATE_PAGE + 100
START_MS, STEP_MS = 1_700_000_000_000, 10_000


def columns(partition: Partition) -> dict[tuple[int, str], np.ndarray]:
    (block,) = partition.blocks.values()
    return {
        (owner, name): array[: block.rows].copy()
        for hot in (True, False)
        for owner, name, array in state_columns(block, hot)
    }


@pytest.mark.parametrize("odd", [[], [0], [1], [STATE_PAGE - 1], [500], [STATE_PAGE + 512, SERIES - 1]])
def test_a_restart_has_every_row_as_it_was_whichever_differ(odd: list[int]) -> None:
    partition, kept = drive.partition(), {}
    for step in range(6):
        rows = [
            (f"m{i}", START_MS + step * STEP_MS + (7 if i in odd else 0), float(step + (i in odd)))
            for i in range(SERIES)
            if not (i in odd and step == 4)
        ]
        out = partition.put(drive.frame(rows, START_MS), step, START_MS)
        kept |= {r.key: r for r in out.catalogue}
        if step in (2, 5):
            kept |= {r.key: r for r in partition.checkpoint(START_MS).records}

    again = drive.fresh()
    for record in kept.values():
        again.restore(record.key, record.value)
    again.start()
    found, wanted = columns(again), columns(partition)
    assert found.keys() == wanted.keys()
    for key, column in wanted.items():
        np.testing.assert_array_equal(found[key], column, err_msg=str(key))
    assert (len(np.unique(wanted[0, "last_ms"])) > 1) == bool(odd)
