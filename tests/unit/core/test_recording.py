"""The step that a recording is in."""

import numpy as np
import pytest

from openanomaly.core.recording import RecordedSeries, infer_step_ms
from openanomaly.errors import ConfigError


def series(*times_s: float) -> RecordedSeries:
    times = (np.array(times_s) * 1000).astype(np.int64)
    return RecordedSeries((("__name__", "a"),), times, np.zeros(len(times)))


@pytest.mark.parametrize(
    ("spacing_s", "step_s"),
    [
        (60, 60),
        (59.9, 60),
        (61.2, 60),
        (300, 300),
        (15.03, 15),
        (0.25, 1),
        (1, 1),
        (7, 7),
        (86400, 86400),
        (3599, 3600),
    ],
)
def test_a_step_is_as_samples_are_spaced(spacing_s: float, step_s: int) -> None:
    assert infer_step_ms([series(*(1e9 + spacing_s * np.arange(9)))]) == step_s * 1000


def test_gaps_and_other_series_do_not_change_it() -> None:
    times = 1e9 + 60.0 * np.delete(np.arange(100), [5, 6, 7, 50])
    assert (
        infer_step_ms([series(*times), series(5.0), series(*(1e9 + 60.0 * np.arange(9))), series()]) == 60_000
    )


def test_one_sample_has_no_spacing() -> None:
    with pytest.raises(ConfigError, match="give --step"):
        infer_step_ms([series(5.0)])
    with pytest.raises(ConfigError, match="604800 s apart, a step has at most 86400 s"):
        infer_step_ms([series(*(604_800.0 * np.arange(5)))])
