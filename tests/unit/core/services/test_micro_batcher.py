"""Frames in, one answer each out; batches as full as waiting allows, however the engine behaves."""

import asyncio
import contextlib
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dues import FAR_MS, HORIZON, Echo, due_frame, memory_for, spoiled_by
from openanomaly.core.contexts import Contexts
from openanomaly.core.services.due_queue import Request
from openanomaly.core.services.micro_batcher import BatchOptions, MicroBatcher
from openanomaly.errors import EngineLostError, ForecastError
from waiting import until

LEVELS = (0.1, 0.5, 0.9)


class Notes:
    """Hears what a batcher does."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.steps = 0
        self.padding = 0
        self.waits = 0
        self.done = 0
        self.left: Counter[str] = Counter()

    def batch(self, model: str, rows: int, seconds: float, steps: int, padding: int) -> None:
        self.batches.append(rows)
        self.steps += steps
        self.padding += padding

    def waited(self, seconds: float, rows: int) -> None:
        self.waits += rows

    def forecast(self, rows: int) -> None:
        self.done += rows

    def dropped(self, reason: str, rows: int) -> None:
        self.left[reason] += rows


class Served:
    """A running batcher and what it answered."""

    def __init__(self, engines: dict[str, Any], **options: Any) -> None:
        self.notes = Notes()
        self.now_ms = 0
        self.answers: list[Request] = []
        made = BatchOptions(
            **{"max_batch": 8, "max_wait_s": 0.0, "queue_limit": 10_000, "levels": LEVELS, **options}
        )
        self.batcher = MicroBatcher(
            engines, made, self.notes, clock_s=time.monotonic, now_ms=lambda: self.now_ms
        )

    async def submit(self, *frames: Any) -> None:
        for frame in frames:
            await self.batcher.submit(frame, self.answers.append)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Served"]:
        task = asyncio.create_task(self.batcher.run())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def is_right(request: Request) -> bool:
    row = request.frame.row[request.ok].astype(np.float32)
    return bool((request.forecast[request.ok] == row[:, None, None]).all())


class Gate(Echo):
    """An engine that waits in its thread until it is let go."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.open = threading.Event()

    def predict(self, context: Any, horizon: int, quantiles: Sequence[float]) -> Any:
        out = super().predict(context, horizon, quantiles)
        assert self.open.wait(30)
        return out


frames = st.lists(
    st.tuples(
        st.integers(0, 30),  # rows
        st.sampled_from(["a", "b", "gone"]),
        st.sampled_from([40, 64, 100, 700]),  # steps
        st.booleans(),  # still useful
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(frames, st.integers(1, 40), st.sampled_from([0.0, 0.005]), st.sets(st.integers(2, 360), max_size=6))
def test_every_frame_is_answered_once_and_every_row_is_forecast_or_dropped(
    asked: list[tuple[int, str, int, bool]], max_batch: int, max_wait_s: float, bad: set[int]
) -> None:
    async def run() -> None:
        rule = spoiled_by({float(x) for x in bad})
        served = Served(
            {"a": Echo(rule), "b": Echo(rule, fixed_shapes=True)}, max_batch=max_batch, max_wait_s=max_wait_s
        )
        served.now_ms = 1000
        made, first = [], 0
        for rows, model, steps, useful in asked:
            until_ms = FAR_MS if useful else 1000
            made.append(due_frame(first, rows, steps, model=model, useful_until_ms=until_ms))
            first += rows
        async with served.running():
            await served.submit(*made)
            await until(lambda: len(served.answers) == len(made))
            assert served.batcher.waiting == 0
        assert {id(r.frame) for r in served.answers} == {id(f) for f in made}
        for request in served.answers:
            assert is_right(request)
            frame = request.frame
            hopeless = frame.model == "gone" or frame.useful_until_ms <= 1000
            expected = [not hopeless and row not in bad for row in frame.row.tolist()]
            assert request.ok.tolist() == expected
        assert served.notes.done + sum(served.notes.left.values()) == first
        assert max(served.notes.batches, default=0) <= max_batch

    asyncio.run(run())


def test_frames_share_a_batch_and_a_large_one_has_several() -> None:
    async def run() -> None:
        served = Served({"auto": Echo()}, max_wait_s=0.3)
        async with served.running():
            await served.submit(due_frame(0, 3), due_frame(3, 3), due_frame(6, 20))
            await until(lambda: len(served.answers) == 3)
        assert served.notes.batches == [8, 8, 8, 2]
        assert served.notes.waits == 26

    asyncio.run(run())


def test_one_batch_is_prepared_while_one_runs_and_the_rest_can_still_grow_stale() -> None:
    async def run() -> None:
        engine = Gate()
        served = Served({"auto": engine})
        async with served.running():
            runs, prepared, waits = (due_frame(8 * i, 8, useful_until_ms=100) for i in range(3))
            await served.submit(runs)
            await until(lambda: engine.calls)
            await served.submit(prepared)
            await until(lambda: served.notes.waits == 16)
            await served.submit(waits)
            await asyncio.sleep(0.02)
            assert len(engine.calls) == 1
            assert served.notes.waits == 16
            assert served.batcher.waiting == 24
            served.now_ms = 100
            engine.open.set()
            await until(lambda: len(served.answers) == 3)
        assert [int(r.ok.sum()) for r in sorted(served.answers, key=lambda r: r.frame.row[0])] == [8, 8, 0]
        assert served.notes.left == {"stale": 8}

    asyncio.run(run())


def test_submitting_waits_while_too_much_does() -> None:
    async def run() -> None:
        engine = Gate()
        served = Served({"auto": engine}, queue_limit=20)
        async with served.running():
            await served.submit(due_frame(0, 30))  # larger than the limit, but nothing else waits
            task = asyncio.create_task(served.submit(due_frame(30, 5)))
            await asyncio.sleep(0.05)
            assert not task.done()
            engine.open.set()
            await task
            await until(lambda: len(served.answers) == 2)
        assert served.notes.done == 35

    asyncio.run(run())


def test_batches_shrink_to_what_fits_and_grow_again_after_long_good_service() -> None:
    async def run() -> None:
        engine = Echo(memory_for(10))
        served = Served({"auto": engine}, max_batch=64)
        async with served.running():
            await served.submit(due_frame(0, 200))
            await until(lambda: served.notes.done == 200)
            assert served.notes.batches[:2] == [64, 64]  # the second one was made before the first ran
            assert max(served.notes.batches[2:]) <= 10
            engine.rule = lambda last: None
            for i in range(100):
                await served.submit(due_frame(200 + 64 * i, 64))
            await until(lambda: served.notes.done == 200 + 6400)
            assert max(served.notes.batches[2:]) > 10
        assert not served.notes.left

    asyncio.run(run())


@pytest.mark.parametrize(
    ("steps", "length"), [(10, 64), (64, 64), (65, 80), (130, 160), (450, 512), (512, 512), (700, 512)]
)
def test_contexts_are_brought_to_few_lengths_at_their_old_end(steps: int, length: int) -> None:
    async def run() -> None:
        seen = []

        class Look(Echo):
            def predict(self, context: Any, horizon: int, quantiles: Sequence[float]) -> Any:
                seen.append(context.copy())
                return super().predict(context, horizon, quantiles)

        served = Served({"auto": Look()})
        context = np.arange(2 * steps, dtype=np.float32).reshape(2, steps)
        async with served.running():
            await served.submit(due_frame(0, 2, context=Contexts.pack(context)))
            await until(lambda: served.answers)
        (found,) = seen
        assert found.shape == (2, length)
        kept = min(steps, length)
        assert (found[:, length - kept :] == context[:, steps - kept :]).all()
        assert np.isnan(found[:, : length - kept]).all()

    asyncio.run(run())


def test_what_is_not_answered_when_it_ends_stays_unanswered() -> None:
    async def run() -> None:
        engine = Gate()
        served = Served({"auto": engine})
        async with served.running():
            await served.submit(due_frame(0, 20))
            await until(lambda: engine.calls)
        engine.open.set()
        await asyncio.sleep(0.02)
        assert served.answers == []
        assert served.batcher.waiting == 20

    asyncio.run(run())


def test_horizons_do_not_mix() -> None:
    async def run() -> None:
        served = Served({"auto": Echo()}, max_wait_s=0.02)
        async with served.running():
            await served.submit(due_frame(0, 4), due_frame(4, 4, horizon=2 * HORIZON))
            await until(lambda: len(served.answers) == 2)
        assert served.notes.batches == [4, 4]
        assert {r.forecast.shape for r in served.answers} == {(4, HORIZON, 3), (4, 2 * HORIZON, 3)}

    asyncio.run(run())


def test_horizons_that_cost_the_same_share_a_batch_and_each_gets_what_it_asked_for() -> None:
    async def run() -> None:
        engine = Echo(horizon_step=64)
        served = Served({"auto": engine}, max_wait_s=0.02)
        async with served.running():
            await served.submit(due_frame(0, 4), due_frame(4, 4, horizon=64), due_frame(8, 3, horizon=65))
            await until(lambda: len(served.answers) == 3)
        assert sorted(served.notes.batches) == [3, 8]
        assert {r.forecast.shape for r in served.answers} == {(4, HORIZON, 3), (4, 64, 3), (3, 65, 3)}
        assert all(is_right(r) for r in served.answers)

    asyncio.run(run())


def test_pipelines_whose_models_mean_the_same_engine_share_a_batch() -> None:
    async def run() -> None:
        engine = Echo()
        served = Served({"auto": engine, "mine": engine, "other": Echo()}, max_wait_s=0.02)
        async with served.running():
            await served.submit(
                *(due_frame(10 * i, 2, model=m) for i, m in enumerate(("auto", "mine", "other")))
            )
            await until(lambda: len(served.answers) == 3)
        assert sorted(served.notes.batches) == [2, 4]
        assert all(is_right(r) and r.ok.all() for r in served.answers)

    asyncio.run(run())


def test_contexts_of_several_lengths_share_a_batch_as_long_as_little_is_padding() -> None:
    async def run() -> None:
        engine = Echo()
        served = Served({"auto": engine}, max_batch=64, max_wait_s=0.05)
        async with served.running():
            await served.submit(
                due_frame(0, 10, steps=512), due_frame(10, 10, steps=448), due_frame(20, 20, steps=64)
            )
            await until(lambda: len(served.answers) == 3)
        assert all(is_right(r) and r.ok.all() for r in served.answers)
        first, second = engine.calls
        assert first[1] == 512
        assert 20 < first[0] < 30, "those of 448 steps, and of the short ones what the limit allows"
        assert second == (40 - first[0], 64)
        assert served.notes.padding <= 0.25 * served.notes.steps

    asyncio.run(run())


def test_young_series_are_told_from_old_ones_in_one_frame() -> None:
    async def run() -> None:
        engine = Echo()
        served = Served({"auto": engine}, max_batch=64)
        context = np.repeat(np.arange(6, dtype=np.float32)[:, None], 512, axis=1)
        context[1::2, :448] = np.nan
        async with served.running():
            await served.submit(due_frame(0, 6, context=Contexts.pack(context)))
            await until(lambda: served.answers)
        assert sorted(engine.calls) == [(3, 64), (3, 512)]
        assert is_right(served.answers[0])
        assert served.notes.padding == 0
        assert served.notes.steps == 3 * (64 + 512)

    asyncio.run(run())


def test_rows_of_fixed_shapes_are_filled_up_by_little() -> None:
    async def run() -> None:
        engine = Echo(fixed_shapes=True)
        served = Served({"auto": engine}, max_batch=1024)
        async with served.running():
            for rows in (1, 17, 100, 333, 1000):
                await served.submit(due_frame(0, rows))
                await until(lambda: served.batcher.waiting == 0)
        assert [rows for rows, _ in engine.calls] == [16, 18, 104, 352, 1024]
        assert served.notes.padding == 64 * sum((15, 1, 4, 19, 24))

    asyncio.run(run())


@pytest.mark.parametrize("fits", [1, 5, 10, 40])
def test_fixed_shapes_shrink_to_what_fits_into_memory(fits: int) -> None:
    async def run() -> None:
        served = Served({"auto": Echo(memory_for(fits), fixed_shapes=True)}, max_batch=64)
        async with served.running():
            await served.submit(due_frame(0, 200))
            await until(lambda: served.answers)
        assert served.answers[0].ok.all()
        assert is_right(served.answers[0])
        assert not served.notes.left

    asyncio.run(run())


def test_an_engine_that_worked_and_does_no_more_ends_the_batcher() -> None:
    async def run() -> None:
        engine = Echo()
        served = Served({"auto": engine})
        task = asyncio.create_task(served.batcher.run())
        await served.submit(due_frame(0, 8))
        await until(lambda: len(served.answers) == 1)
        assert served.batcher.failing is None

        def broken(last: list[float]) -> None:
            raise ForecastError("CUDA error: an illegal memory access was encountered")

        engine.rule = broken
        for i in range(1, 6):
            assert not task.done()
            await served.submit(due_frame(8 * i, 8))
            await until(lambda i=i: len(served.answers) == i + 1)
            assert "illegal memory access" in (served.batcher.failing or "")
        with pytest.raises(ExceptionGroup) as caught:
            await asyncio.wait_for(task, 5)
        assert caught.group_contains(
            EngineLostError, match="model auto worked, and has forecast nothing in 5"
        )
        assert served.notes.left == {"engine": 40}

    asyncio.run(run())


def test_an_engine_that_never_worked_is_told_and_goes_on() -> None:
    """A new process would be no better, and scores do without."""

    async def run() -> None:
        def broken(last: list[float]) -> None:
            raise ForecastError("no kernel image is available")

        engine = Echo(broken)
        served = Served({"auto": engine})
        async with served.running() as _:
            for i in range(12):
                await served.submit(due_frame(8 * i, 8))
                await until(lambda i=i: len(served.answers) == i + 1)
            assert served.batcher.failing == "model auto: no kernel image is available"
            engine.rule = lambda last: None
            await served.submit(due_frame(96, 8))
            await until(lambda: len(served.answers) == 13)
            assert served.batcher.failing is None
            assert served.answers[-1].ok.all()

    asyncio.run(run())


def test_what_has_no_forecast_for_a_reason_that_a_person_can_cure_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def run() -> None:
        served = Served({"auto": Echo()})
        served.now_ms = 1000
        async with served.running():
            for i in range(3):
                await served.submit(due_frame(0, 2, model="gone"), due_frame(0, 2, useful_until_ms=1000))
                await until(lambda i=i: len(served.answers) == 2 * (i + 1))
        assert served.notes.left == {"unknown_model": 6, "stale": 6}

    asyncio.run(run())
    told = [record.message for record in caplog.records]
    assert len(told) == 2, "once a minute"
    assert any("windows ask for model gone" in line for line in told)
    assert any("forecasts do not keep up" in line for line in told)
