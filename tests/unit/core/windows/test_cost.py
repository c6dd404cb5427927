"""What a pipeline costs is what its series then have."""

import numpy as np

from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.windows.block import Block
from openanomaly.core.windows.cost import series_bytes, work
from openanomaly.core.windows.plan import plan
from openanomaly.core.windows.rows import STATE_PAGE


def test_memory_is_that_of_the_columns_of_a_block() -> None:
    pipeline = Pipeline(name="a", context=256, horizon=32)
    one, _ = plan([pipeline])
    block = Block(one)
    found = series_bytes(pipeline)
    assert found.row_state == block.row_state_bytes
    assert found.ring * STATE_PAGE >= block.ring.data.nbytes == (256 + 32) * 4 * STATE_PAGE
    assert found.ring - (256 + 32) * 4 == 16
    (bands,) = block.bands.values()
    assert bands.columns["quantile"].nbytes == 32 * 5 * 2 * STATE_PAGE
    assert found.bands - 32 * 5 * 2 == 24
    assert found.total == found.row_state + found.ring + found.bands
    assert found.shared == 0
    assert found.row_state - series_bytes(pipeline.without_groups).row_state == 4


def test_what_another_pipeline_has_already_is_told() -> None:
    one = Pipeline(name="a")
    alone = series_bytes(one)
    same = series_bytes(one, [Pipeline(name="b")])
    other_forecasts = series_bytes(one, [Pipeline(name="b", horizon=32)])
    assert series_bytes(one, [Pipeline(name="b", step_s=30)]).shared == 0
    # What scoring remembers is each pipeline's own.
    assert same.total == alone.total
    assert 0 < same.total - same.shared < alone.row_state
    assert other_forecasts.shared == same.shared - alone.bands


def test_work_follows_from_the_step_and_how_often_it_is_forecast() -> None:
    found = work(Pipeline(name="a", step_s=60, forecast_every=16), 96_000, outputs=2)
    assert found.forecasts_per_s == 100.0
    assert found.inference_cores is not None
    np.testing.assert_allclose(found.inference_cores, 100 / 1800)
    assert found.window_cores == 1600 / 1e6
    assert found.samples_written_per_s == 3200.0


def test_a_model_that_was_not_measured_has_no_rate() -> None:
    assert work(Pipeline(name="a", model="statistical"), 10).inference_cores is None
    assert work(Pipeline(name="a", context=1024), 10).inference_cores is None
