"""Shapes of batches: few, and close to what they hold."""

import numpy as np
import pytest

from openanomaly.core.contexts import Contexts
from openanomaly.core.services.shapes import batch_sizes, known_steps, lengths


@pytest.mark.parametrize("longest", [16, 64, 100, 512, 2048, 4096])
def test_no_context_is_a_fifth_longer_than_needed(longest: int) -> None:
    ladder = lengths(longest)
    assert ladder[-1] == longest
    assert (np.diff(ladder) > 0).all()
    assert (ladder[1:] - (ladder[:-1] + 1) <= 0.2 * ladder[1:]).all()
    assert len(ladder) <= 30


@pytest.mark.parametrize("largest", [1, 7, 16, 100, 1024, 65536])
def test_no_batch_from_16_rows_on_is_a_ninth_larger_than_needed(largest: int) -> None:
    ladder = np.array(batch_sizes(largest))
    assert ladder[-1] == largest
    assert ladder[0] == min(16, largest)
    assert (np.diff(ladder) > 0).all()
    assert (ladder[1:] - (ladder[:-1] + 1) <= ladder[1:] / 9).all()
    assert len(ladder) <= 100


def test_known_steps_begin_with_the_first_one_that_is_there() -> None:
    context = np.full((5, 100), 3.0, np.float32)
    context[1, :60] = np.nan
    context[2] = np.nan
    context[3, :99] = np.nan
    context[4, 10:90] = np.nan
    assert known_steps(Contexts.pack(context)).tolist() == [100, 40, 1, 1, 100]
