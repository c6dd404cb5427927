"""Due frames answered at once: batches, shapes and failures."""

import numpy as np
import pytest

from dues import HORIZON, Echo, due_frame, memory_for, spoiled_by
from openanomaly.core.frames import ForecastFrame
from openanomaly.core.services.answer import Answerer, Watch


def medians(frames: list[ForecastFrame]) -> dict[int, float]:
    """The first step of the median of each row."""
    out = {}
    for f in frames:
        values = f.quantile[:, 2, 0].astype(np.float64) * f.scale + f.center
        assert f.quantile.shape[1:] == (5, HORIZON)
        out |= dict(zip(f.row.tolist(), values.tolist(), strict=True))
    return out


def test_frames_share_batches_and_each_has_its_answer() -> None:
    engine = Echo()
    answerer = Answerer({"auto": engine}, max_batch=5)
    frames = answerer.answer([due_frame(0, 4), due_frame(10, 7)])
    assert medians(frames) == {row: float(row) for row in [*range(4), *range(10, 17)]}
    assert [rows for rows, _ in engine.calls] == [5, 5, 1]
    assert answerer.forecast == 11
    assert [len(f.row) for f in frames] == [4, 7]


def test_lengths_do_not_share_a_batch() -> None:
    engine = Echo(max_context=256)
    Answerer({"auto": engine}).answer([due_frame(0, 2, steps=64), due_frame(10, 2, steps=512)])
    assert sorted(engine.calls) == [(2, 64), (2, 256)]


def test_a_horizon_is_brought_to_whole_passes_and_cut_again() -> None:
    frames = Answerer({"auto": Echo(horizon_step=3)}).answer([due_frame(0, 2)])
    assert frames[0].quantile.shape == (2, 5, HORIZON)


def test_batches_are_filled_up_to_few_sizes_where_the_engine_wants_that() -> None:
    engine = Echo(fixed_shapes=True)
    assert len(medians(Answerer({"auto": engine}, max_batch=64).answer([due_frame(0, 3)]))) == 3
    assert engine.calls == [(16, 64)]


@pytest.mark.parametrize("model", ["auto", "other"])
def test_rows_without_a_forecast_are_counted(model: str) -> None:
    answerer = Answerer({"auto": Echo(spoiled_by({2.0}))})
    frames = answerer.answer([due_frame(0, 4, model=model)])
    if model == "auto":
        assert sorted(medians(frames)) == [0, 1, 3]
        assert (answerer.forecast, answerer.failed) == (3, {"engine": 1})
        assert "a row spoils the batch" in answerer.error
    else:
        assert frames == []
        assert (answerer.forecast, answerer.failed) == (0, {"unknown_model": 4})
        assert answerer.error == "there is no model other"
    assert len(answerer.answer([due_frame(10, 2)])) == 1
    assert answerer.error == ""


def test_too_little_memory_makes_smaller_batches_from_then_on() -> None:
    engine = Echo(memory_for(4))
    answerer = Answerer({"auto": engine}, max_batch=16)
    assert len(medians(answerer.answer([due_frame(0, 16)]))) == 16
    engine.calls.clear()
    assert len(medians(answerer.answer([due_frame(0, 16)]))) == 16
    assert [rows for rows, _ in engine.calls] == [4, 4, 4, 4]


class Heard:
    """An observer that notes what it is told."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, int, float, int, int]] = []
        self.outcomes: list[tuple[str, int]] = []

    def batch(self, model: str, rows: int, seconds: float, steps: int, padding: int) -> None:
        self.batches.append((model, rows, seconds, steps, padding))

    def forecast(self, rows: int) -> None:
        self.outcomes.append(("forecast", rows))

    def dropped(self, reason: str, rows: int) -> None:
        self.outcomes.append((reason, rows))


def test_who_watches_hears_of_every_batch_and_row() -> None:
    heard, times = Heard(), iter([10.0, 10.5, 20.0, 21.0])
    engine = Echo(spoiled_by({2.0}), fixed_shapes=True)
    answerer = Answerer({"auto": engine}, 64, Watch(heard, lambda: next(times)))
    answerer.answer([due_frame(0, 4, steps=64), due_frame(10, 3, model="other")])
    answerer.answer([due_frame(10, 17, steps=64)])
    # Rows are filled up to 16 and to 18; what belongs to no context is padding.
    assert heard.batches == [("auto", 4, 0.5, 16 * 64, 12 * 64), ("auto", 17, 1.0, 18 * 64, 64)]
    assert heard.outcomes == [("unknown_model", 3), ("forecast", 3), ("engine", 1), ("forecast", 17)]
