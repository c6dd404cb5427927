"""Addresses of stores: which adapter they mean, and what of them is shown."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from openanomaly.adapters.stores import check_url, make_store, shown
from openanomaly.adapters.yaml_store import YamlAdapter
from openanomaly.errors import ConfigError
from openanomaly.settings import Settings


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("pipelines.yaml", "pipelines.yaml"),
        ("./a:b/c", "./a:b/c"),
        ("/etc/pipelines", "/etc/pipelines"),
        ("yaml:pipelines.yaml", "pipelines.yaml"),
        ("yaml:/etc/a b", "/etc/a b"),
        ("file:///etc/a%20b", "/etc/a b"),
        ("file://localhost/etc", "/etc"),
    ],
)
def test_a_path_means_yaml(url: str, path: str) -> None:
    store = make_store(url)
    assert isinstance(store, YamlAdapter)
    assert Path(store.shown) == Path(path)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "yaml:",
        "file://host/etc",
        "mongo://host/db",
        "http://host/pipelines",
        "mongodb://host",
        "mongodb://host/",
        "mongodb:///db",
        "mongodb://host/db/collection",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"expected PATH, yaml:PATH, .* found"):
        check_url(url)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("/etc/pipelines", "/etc/pipelines"),
        ("mongodb://me:secret@a:1,b:2/db?collection=c&tls=true", "mongodb://a:1,b:2/db?collection=c"),
        ("mongodb://me:sec@ret@a/db?tlsCertificateKeyFilePassword=secret", "mongodb://a/db"),
        ("mongodb+srv://me:sec/ret@a/db", "mongodb+srv://a/db"),
        ("mongodb://a/db", "mongodb://a/db"),
    ],
)
def test_secrets_of_an_address_are_not_shown(url: str, said: str) -> None:
    assert shown(url) == said


def test_the_settings_show_no_secret_of_the_store() -> None:
    settings = Settings.model_validate({"store": {"url": "mongodb://me:hunter2@host/db"}})
    assert settings.store.url == "mongodb://me:hunter2@host/db"
    assert settings.model_dump()["store"]["url"] == "mongodb://host/db"
    with pytest.raises(ValidationError) as raised:
        Settings.model_validate({"store": {"url": "mongodb://me:hunter2@host"}})
    assert "hunter2" not in str(raised.value.errors(include_input=False))


def test_pipelines_are_defined_in_one_place() -> None:
    with pytest.raises(ValidationError, match=r"store.url='a' and pipelines exclude each other"):
        Settings.model_validate({"store": {"url": "a"}, "pipelines": [{"name": "a"}]})
