"""What is true of MongoDB only: documents by hand, servers that restart, addresses and their secrets."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from contract.config_store.places import POLL_S, Mongo, in_loop, names, opened, watched
from openanomaly.adapters.stores import make_store
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.errors import ConfigError, PipelineChangedError, StoreUnavailableError
from parts import mongo
from parts.part import free_port
from waiting import until


def keep(place: Mongo, document: dict[str, Any]) -> None:
    place.collection.replace_one({"_id": document["_id"]}, document, upsert=True)


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"definition": {"horizon": 0}}, "horizon = 0: allowed: at least 1 and at most 1024"),
        ({"definition": {"name": "b"}}, "name = 'b': expected the same as _id"),
        ({"definitions": {}}, "no field definitions; did you mean definition?"),
        ({}, "definition: expected options of a pipeline, found NoneType"),
        ({"definition": ["a"]}, "definition: expected options of a pipeline, found list"),
        ({"definition": {"score": {"quite": 3}}}, "no setting score.quite; did you mean quiet?"),
        ({"definition": {"score": "high"}}, "score = (secret): expected settings by name"),
    ],
)
@in_loop
async def test_a_problem_names_the_document(
    mongo_place: Mongo, document: dict[str, Any], problem: str
) -> None:
    keep(mongo_place, {"_id": "a", **document})
    async with opened(mongo_place) as store:
        found = await store.read()
        assert found.stored == ()
        assert f"{store.shown}, _id 'a': {problem}" in found.problems


@in_loop
async def test_an_id_that_is_no_name_is_a_problem(mongo_place: Mongo) -> None:
    keep(mongo_place, {"_id": 5, "definition": {}})
    async with opened(mongo_place) as store:
        [problem] = (await store.read()).problems
        assert ", _id 5: name = 5: input should be a valid string" in problem


@in_loop
async def test_a_change_by_hand_is_seen_though_the_revision_is_the_same(mongo_place: Mongo) -> None:
    async with opened(mongo_place) as store:
        first = await store.create(Pipeline(name="a"))
        mongo_place.collection.update_one({"_id": "a"}, {"$set": {"definition.step_s": 5.0}})
        with pytest.raises(PipelineChangedError):
            await store.replace(Pipeline(name="a", step_s=7), first.version)
        [now] = (await store.read()).stored
        assert now.pipeline.step_s == 5
        await store.replace(Pipeline(name="a", step_s=7), now.version)


@in_loop
async def test_what_bson_cannot_hold_is_refused(mongo_place: Mongo) -> None:
    async with opened(mongo_place) as store:
        with pytest.raises(ConfigError, match="MongoDB does not take the definition"):
            await store.create(Pipeline(name="a", labels={"a": "\ud800"}))
        assert (await store.read()).stored == ()


# -- servers -------------------------------------------------------------------------------------


class Restarted:
    """A place whose server is killed and started again, with nothing in it then."""

    def __init__(self, server: mongo.Server) -> None:
        self.server = server

    def make(self) -> Any:
        return make_store(self.server.url(options="serverSelectionTimeoutMS=300"), POLL_S)

    def put(self, name: str) -> None:
        with MongoClient[dict[str, Any]](self.server.url()) as client:
            client["openanomaly"]["pipelines"].insert_one({"_id": name, "definition": {}})


@pytest.fixture(params=[True, False])
def restarted(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Restarted]:
    with mongo.server(tmp_path, change_streams=request.param) as server:
        yield Restarted(server)


@in_loop
async def test_a_watch_goes_on_behind_a_restart(restarted: Restarted) -> None:
    restarted.put("a")
    async with watched(restarted) as told:  # type: ignore[arg-type]
        for name in ("b", "c"):
            restarted.server.kill()
            await asyncio.sleep(0.3)
            assert len(told[-1].stored) == 1
            await asyncio.to_thread(restarted.server.start)
            restarted.put(name)
            await until(lambda: names(told[-1]) == [name])  # noqa: B023 (awaited at once)


@in_loop
async def test_a_server_that_is_not_there_is_named_without_secrets() -> None:
    url = f"mongodb://me:hunter2@127.0.0.1:{free_port()}/db?collection=c&serverSelectionTimeoutMS=200"
    store = make_store(url)
    with pytest.raises(
        StoreUnavailableError, match=r"cannot reach mongodb://127.0.0.1:\d+/db\?collection=c: "
    ) as raised:
        await store.read()
    assert "hunter2" not in str(raised.value)
    assert "Topology" not in str(raised.value)
    await store.close()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mongodb://host/db?colection=c", "MongoDB does not know all of its options: colection"),
        ("mongodb://host/db?tls=maybe", "The value of tls must be"),
        ("mongodb://me:hunter2@x@host/db", "is it percent-encoded"),
        ("mongodb://me:hunter2/x@host/db", "expected PATH, yaml:PATH"),
        ("mongodb://host:port/db", "Port"),
        ("mongodb://host/a.b", "database names cannot contain"),
        ("mongodb://host/db?collection=a..b", "collection names"),
    ],
)
@in_loop
async def test_addresses_that_cannot_be_are_refused_without_secrets(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        make_store(url)
    assert "hunter2" not in str(raised.value)


@in_loop
async def test_options_of_the_address_are_those_of_mongodb() -> None:
    store = make_store("mongodb://host/db?connectTimeoutMS=1234&tls=true&authSource=admin&w=1")
    options = store._client.options  # type: ignore[attr-defined]
    assert options.pool_options.connect_timeout == 1.234
    assert options.server_selection_timeout == 3
    assert options.pool_options._ssl_context is not None
    assert store._collection.write_concern.document == {"w": 1}  # type: ignore[attr-defined]
    assert store._collection.name == "pipelines"  # type: ignore[attr-defined]
    await store.close()
