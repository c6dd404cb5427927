"""The places of definitions that every store must do the same with."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from contract.config_store.places import Folder, Mongo, Place, SettingsFile, YamlFile
from parts import mongo
from parts.relay import relay

YAML = {"yaml file": YamlFile, "settings file": SettingsFile, "yaml folder": Folder}
MONGO = {"mongo": True, "mongo without change streams": False}


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[bool, mongo.Server]]:
    """A server with change streams, and one without."""
    root = tmp_path_factory.mktemp("mongo")
    with mongo.server(root) as streams, mongo.server(root, change_streams=False) as plain:
        yield {True: streams, False: plain}


@pytest.fixture(params=MONGO)
def mongo_place(request: pytest.FixtureRequest, servers: dict[bool, mongo.Server]) -> Iterator[Mongo]:
    yield from _mongo(servers[MONGO[request.param]])


@pytest.fixture(params=[*YAML, *MONGO])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param in YAML:
        yield YAML[request.param](tmp_path)
    else:
        yield from _mongo(request.getfixturevalue("servers")[MONGO[request.param]])


def _mongo(server: mongo.Server) -> Iterator[Mongo]:
    client: MongoClient[dict[str, Any]] = MongoClient(server.url())
    with relay(server.port) as network, client:
        yield Mongo(network, client, f"t{uuid.uuid4().hex[:10]}")
