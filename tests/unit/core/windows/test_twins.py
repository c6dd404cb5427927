"""Compiled or not: the same records, the same state, the same counts, to the bit."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openanomaly.core import kernels
from openanomaly.core.contexts import Contexts
from openanomaly.core.frames import DueFrame, ForecastFrame
from openanomaly.core.pipelines.pipeline import ScoreOptions
from openanomaly.core.scoring import LEVELS
from openanomaly.core.windows.output import Output
from openanomaly.core.windows.partition import Partition
from openanomaly.core.windows.ring import Ring
from openanomaly.core.windows.state_pages import state_columns
from parts.part import missing
from unit.core.windows import drive, strategies_windows
from unit.core.windows.reference import Tick

AGGREGATES = ["mean", "last", "min", "max", "sum", "count"]


@pytest.fixture(scope="module", autouse=True)
def each_way() -> None:
    """Here a test compares the two itself."""
    kernels.warm_up()
    if not kernels.WINDOWS.ready():
        missing("numba", "uv sync --all-extras")


def both_ways(work: Callable[[], list[object]]) -> None:
    """Does `work` without the compiled loops and with them: what it gives must be the same."""
    found = []
    for is_compiled in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kernels, "ready", lambda to=is_compiled: to)
            patch.setattr(kernels.WINDOWS, "ready", lambda to=is_compiled: to)
            found.append(work())
    plain, compiled = found
    assert len(plain) == len(compiled)
    for one, other in zip(plain, compiled, strict=True):
        assert one == other


def forecast(due: DueFrame, horizon: int) -> ForecastFrame:
    """A forecast that is a function of the context alone, with quantiles that meet and cross."""
    last = np.nan_to_num(due.context.values[:, -1:, None])
    spread = np.array([-2, -1, 0, 1, 1], np.float32) * (1 + np.abs(last) / 8)
    flat = (last + spread + np.arange(horizon, dtype=np.float32)[None, :, None] / 4).astype(np.float32)
    return ForecastFrame.pack(due, np.array(LEVELS, np.float32), flat)


def written(partition: Partition, output: Output) -> list[object]:
    out: list[object] = [*output.catalogue, *output.ring]
    out += [f.encode() for f in (*output.due, *output.scores)]
    return out


def run(requests: list, pipelines: tuple) -> list[object]:
    """Everything a partition says of `requests`, and what it is afterwards."""
    partition = drive.partition(*pipelines)
    found: list[object] = []
    samples = forecasts = 0
    for request in requests:
        if isinstance(request, Tick):
            output = partition.tick(request.now_ms)
        else:
            rows = [(name, s.timestamp_ms, s.value) for name, s in request]
            output = partition.put(drive.frame(rows, request[0][1].received_ms), samples, 0)
            samples += 1
        found += written(partition, output)
        for due in output.due:
            frame = ForecastFrame.decode(forecast(due, due.horizon).encode())
            partition.forecast(frame, forecasts, 0)
            forecasts += 1
    for block in partition.blocks.values():
        found.append({name: n for name, n in block.counts.items() if n})
        for hot in (True, False):
            found += [
                (owner, name, a[: block.rows].tobytes()) for owner, name, a in state_columns(block, hot)
            ]
    found += partition.checkpoint(0).records
    return found


@pytest.mark.parametrize("aggregate", AGGREGATES)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_samples_forecasts_and_ticks(aggregate: str, data: st.DataObject) -> None:
    requests = data.draw(strategies_windows.requests())
    direction = data.draw(st.sampled_from(["both", "above", "below"]))
    named = (
        [("error", "froze"), ("value", "mean_12", "quiet")] if direction == "both" else [("error", "value")]
    )
    channels = data.draw(st.sampled_from([None, *named]))
    options = ScoreOptions(warmup=2, block=12, direction=direction, channels=channels)
    pipelines = (
        drive.pipeline(aggregate=aggregate, score=options),
        drive.pipeline("other", aggregate=aggregate, forecast_every=1, horizon=3, min_context=2),
    )
    both_ways(lambda: run(requests, pipelines))


def test_thousands_of_rows_and_steps() -> None:
    """Old series with shapes of all kinds, steps that some skip, and forecasts for some."""
    names = [f"m{i}" for i in range(600)]
    pipelines = (drive.pipeline(score=ScoreOptions(warmup=3, block=24)),)

    def work() -> list[object]:
        rng = np.random.default_rng(5)
        partition = drive.partition(*pipelines)
        found: list[object] = []
        for step in range(120):
            value = rng.standard_normal(600) * np.where(rng.random(600) < 0.02, 40, 1)
            value[:50] = 5.0
            value[50:100] = rng.integers(0, 2, 50)
            value[100:110] *= 1e30
            value[110:150] += 1e9
            there = rng.random(600) < (0.7 if step % 5 == 0 else 1.1)
            t = 1_700_000_000_000 + step * 10_000
            rows = [(names[i], t, value[i]) for i in np.flatnonzero(there)]
            output = partition.put(drive.frame(rows, t), step, t)
            found += written(partition, output)
            for due in output.due if step % 9 else []:
                partition.forecast(ForecastFrame.decode(forecast(due, 8).encode()), step, t)
        (block,) = partition.blocks.values()
        found += [a[:600].tobytes() for hot in (True, False) for _, _, a in state_columns(block, hot)]
        assert block.counts["anomalous"] > 100
        return found

    both_ways(work)


FLOATS = st.one_of(
    st.floats(width=32, allow_nan=False, min_value=-(2.0**127), max_value=2.0**127),
    st.integers(-9, 9).map(float),
    st.just(float("nan")),
)


@settings(max_examples=150, deadline=None)
@given(
    values=st.lists(FLOATS, min_size=1, max_size=60),
    length=st.integers(1, 40),
    back=st.integers(0, 3),
    born=st.integers(0, 50),
)
def test_contexts(values: list[float], length: int, back: int, born: int) -> None:
    def work() -> list[object]:
        ring, row = Ring(length), np.zeros(1, np.int64)
        ring.grow(1)
        for bucket, value in enumerate(values):
            if value == value:
                ring.put(row, np.array([bucket]), np.array([value], np.float32))
        context, known = ring.contexts(row, np.array([len(values) - 1 - back]), np.array([born]))
        bits = np.where(np.isnan(context.packed), np.uint16(1), context.packed.view(np.uint16))
        return [bits.tobytes(), context.center.tobytes(), context.scale.tobytes(), known.tolist()]

    both_ways(work)


@settings(max_examples=200, deadline=None)
@given(st.lists(FLOATS, min_size=1, max_size=80))
def test_a_packed_context_is_within_a_thousandth_of_its_extent(values: list[float]) -> None:
    context = np.array([values], np.float32)
    packed = Contexts.pack(context)
    back = packed.values
    assert (np.isnan(back) == np.isnan(context)).all()
    if np.isfinite(context).any():
        wide = context.astype(np.float64)
        extent = np.nanmax(np.abs(wide - packed.center[0]))
        error = np.abs(back.astype(np.float64) - wide)
        ulp = np.spacing(np.nanmax(np.abs(context)))  # of the sum with the centre
        assert np.nanmax(error) <= extent / 1024 + ulp


@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=80))
def test_small_integers_come_through_as_they_are(values: list[int]) -> None:
    context = np.array([values], np.float32)
    assert (Contexts.pack(context).values == context).all()


def test_an_outlier_leaves_the_rest_of_a_context_readable() -> None:
    context = np.sin(np.arange(512, dtype=np.float32))[None].copy()
    context[0, 300] = 1e6
    back = Contexts.pack(context).values
    rest = np.arange(512) != 300
    assert np.abs(back - context)[0, rest].max() < 0.001


def test_every_float16_is_read_as_numpy_reads_it() -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    finite = bits[np.isfinite(bits.view(np.float16))]
    from openanomaly.core.windows.bands import Bands

    for is_compiled in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kernels.WINDOWS, "ready", lambda to=is_compiled: to)
            n = len(finite)
            bands = Bands(1)
            bands.grow(n)
            bands.columns["quantile"][:n, 0, :] = finite.view(np.float16)[:, None]
            bands.columns["scale"][:n] = 1
            bands.columns["origin"][:n] = 9
            rows = np.arange(n)
            found = bands.at(rows, np.full(n, 10), np.zeros(n))
            assert (found[:, 3] == finite.view(np.float16).astype(np.float64)).all()
