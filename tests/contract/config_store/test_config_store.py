"""What every ConfigStore must do. A new adapter joins the places in conftest.py and passes, or is not one."""

import asyncio
import itertools
from collections.abc import Awaitable

import pytest
from hypothesis import HealthCheck, given, settings

from contract.config_store.places import Place, in_loop, names, opened, watched
from openanomaly.core.pipelines.pipeline import Pipeline, ScoreOptions
from openanomaly.core.ports.config_store import ConfigStore, Definitions, Stored
from openanomaly.errors import (
    ConfigError,
    PipelineChangedError,
    PipelineExistsError,
    StoreUnavailableError,
    UnknownPipelineError,
)
from pipelines import pipelines
from waiting import until

A = Pipeline(name="a", step_s=15, score=ScoreOptions(direction="above"), labels={"team": "x"})
B = Pipeline(name="b", selector='{job="b"}')


# -- read, create, replace, delete ---------------------------------------------------------------


@in_loop
async def test_what_is_created_is_there_in_the_order_of_names(place: Place) -> None:
    async with opened(place) as store, opened(place) as other:
        assert await store.read() == Definitions(())
        b, a = await store.create(B), await store.create(A)
        assert (a.pipeline, b.pipeline) == (A, B)
        for each in (store, other):
            assert await each.read() == Definitions((a, b))


@in_loop
async def test_a_name_is_taken_once(place: Place) -> None:
    async with opened(place) as store, opened(place) as other:
        a = await store.create(A)
        with pytest.raises(PipelineExistsError, match="there is a pipeline 'a' in"):
            await other.create(A.model_copy(update={"step_s": 30}))
        assert await other.read() == Definitions((a,))


@in_loop
async def test_a_definition_is_replaced_as_it_was_read(place: Place) -> None:
    async with opened(place) as store, opened(place) as other:
        first, b = await store.create(A), await store.create(B)
        second = await other.replace(Pipeline(name="a", step_s=30), first.version)
        assert second.version != first.version
        assert await store.read() == Definitions((second, b))
        with pytest.raises(PipelineChangedError, match=r"pipeline 'a' in .* was changed"):
            await store.replace(Pipeline(name="a", step_s=60), first.version)
        assert await store.read() == Definitions((second, b))
        third = await store.replace(Pipeline(name="a", step_s=60), None)
        assert (await other.read()).stored == (third, b)


@in_loop
async def test_a_definition_is_deleted_as_it_was_read(place: Place) -> None:
    async with opened(place) as store, opened(place) as other:
        first, b = await store.create(A), await store.create(B)
        second = await other.replace(Pipeline(name="a", step_s=30), first.version)
        with pytest.raises(PipelineChangedError, match=r"pipeline 'a' in .* was changed"):
            await store.delete("a", first.version)
        await store.delete("a", second.version)
        assert await other.read() == Definitions((b,))
        await store.delete("b", None)
        assert await other.read() == Definitions(())
        assert (await store.create(A)).pipeline == A


@in_loop
async def test_what_is_not_there_is_not_changed(place: Place) -> None:
    async with opened(place) as store:
        b = await store.create(B)
        for version in (None, b.version):
            with pytest.raises(UnknownPipelineError, match="there is no pipeline 'a' in"):
                await store.replace(A, version)
            with pytest.raises(UnknownPipelineError, match="there is no pipeline 'a' in"):
                await store.delete("a", version)
        assert await store.read() == Definitions((b,))


@in_loop
async def test_a_change_by_hand_is_another_version(place: Place) -> None:
    async with opened(place) as store:
        await store.create(A)
        place.put("a", {"step_s": "90s", "score": {"quiet": 3}})
        [changed] = (await store.read()).stored
        assert changed.pipeline == Pipeline(name="a", step_s=90, score=ScoreOptions(quiet=3))
        place.put("a", {"step_s": "91s", "score": {"quiet": 3}})
        [again] = (await store.read()).stored
        assert again.version != changed.version
        with pytest.raises(PipelineChangedError):
            await store.replace(A, changed.version)
        assert (await store.replace(A, again.version)).pipeline == A


@in_loop
async def test_versions_are_for_headers(place: Place) -> None:
    async with opened(place) as store:
        version = (await store.create(A)).version
        assert version.isascii()
        assert version.isprintable()
        assert '"' not in version


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pipeline=pipelines(), other=pipelines())
@in_loop
async def test_every_option_comes_back(place: Place, pipeline: Pipeline, other: Pipeline) -> None:
    async with opened(place) as store:
        for left in (await store.read()).stored:
            await store.delete(left.pipeline.name, left.version)
        created = await store.create(pipeline)
        assert await store.read() == Definitions((created,))
        assert created.pipeline == pipeline
        assert created.pipeline.model_fields_set == pipeline.model_fields_set
        if other.name != pipeline.name:
            beside = await store.create(other)
            assert (await store.read()).stored == by_name([created, beside])
        renamed = other.model_copy(update={"name": pipeline.name})
        replaced = await store.replace(renamed, created.version)
        assert replaced in (await store.read()).stored
        assert replaced.pipeline == renamed


def by_name(stored: list[Stored]) -> tuple[Stored, ...]:
    return tuple(sorted(stored, key=lambda one: one.pipeline.name))


# -- writers at the same time --------------------------------------------------------------------


async def outcomes(*changes: Awaitable[Stored]) -> tuple[list[Stored], list[BaseException]]:
    done = await asyncio.gather(*changes, return_exceptions=True)
    return [x for x in done if isinstance(x, Stored)], [x for x in done if isinstance(x, BaseException)]


@in_loop
async def test_two_writers_lose_nothing(place: Place) -> None:
    async with opened(place) as one, opened(place) as two:
        created, failed = await outcomes(
            *(
                store.create(Pipeline(name=f"{i:02}-{n}"))
                for i in range(10)
                for n, store in enumerate((one, two))
            )
        )
        assert not failed
        assert (await one.read()).stored == by_name(created)
        assert len(created) == 20


@in_loop
async def test_of_two_writers_of_one_version_one_wins(place: Place) -> None:
    async with opened(place) as one, opened(place) as two:
        first = await one.create(A)
        won, lost = await outcomes(
            *(
                store.replace(Pipeline(name="a", step_s=2 + 2 * i + n), first.version)
                for i in range(4)
                for n, store in enumerate((one, two))
            )
        )
        assert len(won) == 1
        assert {type(error) for error in lost} == {PipelineChangedError}
        assert (await two.read()).stored == tuple(won)


@in_loop
async def test_of_two_creators_of_a_name_one_wins(place: Place) -> None:
    async with opened(place) as one, opened(place) as two:
        won, lost = await outcomes(*(store.create(A) for store in (one, two, one, two)))
        assert len(won) == 1
        assert {type(error) for error in lost} == {PipelineExistsError}


# -- what cannot be used -------------------------------------------------------------------------


@in_loop
async def test_a_problem_says_place_value_and_what_is_allowed(place: Place) -> None:
    async with opened(place) as store:
        a = await store.create(A)
        place.put("bad", {"score": {"tolerance": 11}, "horizont": 5})
        found = await store.read()
        assert found.stored == (a,)
        assert len(found.problems) == 2
        for problem in found.problems:
            assert problem.startswith(store.shown)
        said = "\n".join(found.problems)
        assert "score.tolerance = 11: allowed: at least 0 and at most 10" in said
        assert "horizont; did you mean horizon?" in said


@in_loop
async def test_others_can_be_changed_beside_a_problem(place: Place) -> None:
    async with opened(place) as store:
        place.put("bad", {"horizon": 0})
        a = await store.create(A)
        changed = await store.replace(Pipeline(name="a"), a.version)
        [problem] = (await store.read()).problems
        assert "horizon = 0" in problem
        await store.delete("a", changed.version)
        place.put("bad", {"horizon": 16})
        found = await store.read()
        assert (found.pipelines, found.problems) == ((Pipeline(name="bad", horizon=16),), ())


@in_loop
async def test_the_place_of_a_problem_is_that_of_its_definition(place: Place) -> None:
    place.put("good", {})
    place.put("bad", {"step_s": "fast"})
    async with opened(place) as store:
        [problem] = (await store.read()).problems
        assert "step_s = 'fast': input should be a valid number" in problem


# -- watch ---------------------------------------------------------------------------------------


@in_loop
async def test_a_watcher_is_told_what_is_there_and_every_change(place: Place) -> None:
    place.put("a", {"step_s": 15})
    async with opened(place) as store, watched(place) as told:
        assert names(told[-1]) == ["a"]
        await store.create(B)
        await until(lambda: names(told[-1]) == ["a", "b"])
        place.put("a", {"step_s": 20})
        await until(lambda: told[-1].pipelines[0].step_s == 20)
        place.drop("a")
        await until(lambda: names(told[-1]) == ["b"])
        await store.replace(Pipeline(name="b", horizon=32), None)
        await until(lambda: told[-1].pipelines[0].horizon == 32)
        await store.delete("b", None)
        await until(lambda: not told[-1].stored)
        assert told[-1] == await store.read()


@in_loop
async def test_a_watcher_is_told_of_a_problem_and_of_its_end(place: Place) -> None:
    place.put("a", {})
    async with watched(place) as told:
        place.put("b", {"horizon": 0})
        await until(lambda: told[-1].problems)
        assert "horizon = 0" in told[-1].problems[0]
        place.put("b", {"horizon": 16})
        await until(lambda: not told[-1].problems)
        assert names(told[-1]) == ["a", "b"]


@in_loop
async def test_a_watcher_is_told_nothing_that_it_knows(place: Place) -> None:
    place.put("a", {"step_s": 60})
    async with opened(place) as store, watched(place) as told:
        for i in range(3):
            place.put("a", {"step_s": 60})
            await store.create(Pipeline(name=f"b{i}"))
            await until(lambda: names(told[-1])[-1] == f"b{i}")  # noqa: B023 (awaited at once)
        assert all(before != after for before, after in itertools.pairwise(told))
        await store.read()


# -- outages -------------------------------------------------------------------------------------


@in_loop
async def test_a_store_that_is_away_says_so_and_comes_back(place: Place) -> None:
    async with opened(place) as store:
        a = await store.create(A)
        with place.away():
            for question in (
                store.read(),
                store.create(B),
                store.replace(A, None),
                store.delete("a", a.version),
            ):
                with pytest.raises(StoreUnavailableError, match=r"cannot (read|reach|change) "):
                    await question
        assert await reached(store) == Definitions((a,))
        b = await store.create(B)
        assert await store.read() == Definitions((a, b))


async def reached(store: ConfigStore) -> Definitions:
    """What is there, as soon as the store is."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await store.read()
            except StoreUnavailableError:
                await asyncio.sleep(0.05)


@in_loop
async def test_a_watcher_waits_an_outage_out_and_is_told_what_changed_meanwhile(place: Place) -> None:
    place.put("a", {})
    async with watched(place) as told:
        for i in range(2):
            with place.away():
                async with opened(place) as other:
                    with pytest.raises(StoreUnavailableError):
                        await other.read()
                before = len(told)
                place.put(f"b{i}", {})
                await asyncio.sleep(0.3)
                assert len(told) == before
            await until(lambda: f"b{i}" in names(told[-1]))  # noqa: B023 (awaited at once)
        assert names(told[-1]) == ["a", "b0", "b1"]
        place.drop("a")
        await until(lambda: names(told[-1]) == ["b0", "b1"])


@in_loop
async def test_a_watch_that_begins_in_an_outage_begins_behind_it(place: Place) -> None:
    place.put("a", {})
    async with opened(place) as store:
        watch = store.watch()
        with place.away():
            first = asyncio.ensure_future(anext(watch))
            await asyncio.sleep(0.3)
            assert not first.done()
        assert names(await asyncio.wait_for(first, 20)) == ["a"]
        await watch.aclose()  # type: ignore[attr-defined]


@in_loop
async def test_a_store_is_closed_more_than_once(place: Place) -> None:
    async with opened(place) as store:
        await store.read()
        await store.close()


def test_errors_of_changes_are_those_of_settings() -> None:
    """Whoever answers a request tells them apart, and they are refusals all the same."""
    for error in (UnknownPipelineError, PipelineExistsError, PipelineChangedError):
        assert issubclass(error, ConfigError)
