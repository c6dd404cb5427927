"""The settings themselves: what a value may be, and that secrets stay secret."""

import json
from typing import Any, get_args

import pytest
from pydantic import BaseModel, SecretStr, ValidationError

from openanomaly.core.pipelines.pipeline import Pipeline, ScoreOptions
from openanomaly.settings import Settings

GROUPS = [info.annotation for info in Settings.model_fields.values() if isinstance(info.annotation, type)]


def test_the_defaults_are_valid_when_written_out() -> None:
    written = Settings().model_dump(mode="json")
    assert Settings.model_validate(written) == Settings()


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().broker.partitions = 3


@pytest.mark.parametrize(
    ("group", "values", "message"),
    [
        ("web", {"listen": "9201"}, "expected HOST:PORT"),
        ("web", {"listen": "::1:9201"}, "expected HOST:PORT"),
        ("web", {"listen": ":65536"}, "up to 65535"),
        ("web", {"tls": {"cert_file": "a"}}, "must be set together"),
        ("web", {"tls": {"client_ca_file": "a"}}, "needs cert_file"),
        ("web", {"auth": {"username": "a"}}, "must be set together"),
        ("web", {"auth": {"password": "a"}}, "must be set together"),
        ("web", {"auth": {"bearer_token": ""}}, "at least 1"),
        ("broker", {"url": "redis://here"}, "expected embedded://PATH or kafka://HOST:PORT"),
        ("broker", {"url": "kafka://"}, "expected embedded://PATH or kafka://HOST:PORT"),
        ("broker", {"url": "kafka://host:notaport"}, "expected kafka://HOST:PORT"),
        ("broker", {"url": "kafka://a:1,b:2/c"}, "expected kafka://HOST:PORT"),
        ("broker", {"url": "kafka://me:word@host:1"}, "credentials are broker.sasl_username"),
        ("broker", {"topic_prefix": ""}, "match pattern"),
        ("broker", {"topic_prefix": "a/b"}, "match pattern"),
        ("broker", {"tls_ca_file": "a"}, "tls_ca_file needs tls"),
        ("broker", {"tls": True, "tls_key_file": "a"}, "needs tls_cert_file"),
        ("broker", {"sasl_username": "a"}, "needs sasl_mechanism"),
        ("broker", {"partitions": True}, "found true, as YAML reads yes"),
        ("broker", {"synchronous": False}, "found false, as YAML reads yes"),
        ("broker", {"partitions": 0}, "greater than or equal to 1"),
        ("broker", {"samples_retention_s": float("inf")}, "finite number"),
        ("receiver", {"frame_limit_bytes": 900_001}, "less than or equal to 900000"),
        ("sink", {"url": "localhost:8428"}, "expected http://HOST:PORT/api/v1/write"),
        ("sink", {"backoff_min_s": 31}, "above backoff_max_s"),
        ("pull", {"url": "localhost:9090"}, "expected http://HOST:PORT, found 'localhost:9090'"),
        ("pull", {"backoff_min_s": 6}, "above backoff_max_s"),
        ("pull", {"password_file": "x"}, "need username"),
        ("pull", {"points_limit": 1}, "greater than or equal to 2"),
        ("receiver", {"replica_labels": ["a b"]}, "'a b' is no label name"),
        ("receiver", {"replica_labels": ["__name__"]}, "the name of a metric"),
        ("receiver", {"cluster_label": ""}, "'' is no label name"),
        ("sink", {"series": ["score"]}, "anomaly_score"),
        ("sink", {"external_labels": {"0dc": "x"}}, "'0dc' is no label name"),
        ("sink", {"external_labels": {"pipeline": "x"}}, "every score has"),
        ("sink", {"headers": {"a b": "x"}}, "match pattern"),
        ("sink", {"password": "x"}, "need username"),
        ("pipelines", [], "at least one"),
        ("pipelines", [{"name": "a"}, {"name": "a"}], "used twice"),
        ("pipelines", [{"name": "a b"}], "match pattern"),
        ("pipelines", [{"name": "a", "selector": "{"}], "cannot parse selector"),
        ("pipelines", [{"name": "a", "score": {"data_range": [1, 1]}}], r"expected \[lower, upper\]"),
        ("pipelines", [{"name": "a", "score": {"data_range": [float("nan"), 1]}}], "expected"),
        ("pipelines", [{"name": "a", "score": {"min_deviation": float("inf")}}], "finite number"),
        ("pipelines", [{"name": "a", "score": {"scale": [1, float("inf")]}}], "finite number"),
        ("pipelines", [{"name": "a", "score": {"channels": []}}], "at least 1"),
        ("pipelines", [{"name": "a", "labels": {"__name__": "x"}}], "the name of a metric"),
        ("pipelines", [{"name": "a", "labels": {"for": "x"}}], "every score has"),
        ("window", {"max_serie": 1}, "Extra inputs"),
    ],
)
def test_values_out_of_range_are_refused(group: str, values: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Settings.model_validate({group: values})


@pytest.mark.parametrize("url", ["kafka://host", "kafka://a:1,b.example:65535", "kafka://[::1]:9092/"])
def test_addresses_of_kafka(url: str) -> None:
    assert Settings.model_validate({"broker": {"url": url}}).broker.url == url


def test_a_range_of_values_may_be_open_at_one_side() -> None:
    score = ScoreOptions.model_validate({"data_range": [0, float("inf")]})
    assert score.data_range == (0, float("inf"))
    shown = json.dumps(score.model_dump(mode="json"), allow_nan=False)
    assert ScoreOptions.model_validate_json(shown) == score


@pytest.mark.parametrize("listen", [":9201", "127.0.0.1:0", "[::1]:9201", "a.example:80"])
def test_addresses_to_listen_on(listen: str) -> None:
    assert Settings.model_validate({"web": {"listen": listen}}).web.listen == listen


def undescribed(model: type[BaseModel], path: str = "") -> list[str]:
    found = []
    for name, info in model.model_fields.items():
        if not (info.description or "").rstrip().endswith("."):
            found.append(path + name)
        for inner in groups(info.annotation):
            found += undescribed(inner, f"{path}{name}.")
    return found


def groups(annotation: Any) -> list[type[BaseModel]]:
    """The groups of settings in an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [group for inner in get_args(annotation) for group in groups(inner)]


def test_every_setting_is_described() -> None:
    assert groups(Settings.model_fields["pipelines"].annotation) == [Pipeline]
    assert undescribed(Settings) == []


def secrets(model: type[BaseModel], path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every setting whose name says that it is a secret."""
    found = []
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            found += secrets(info.annotation, (*path, name))
        elif name.endswith(("token", "password")):
            found.append((*path, name))
    return found


def test_no_secret_is_shown() -> None:
    tree: dict[str, Any] = {
        "web": {
            "auth": {"bearer_token": "hunter2", "username": "a", "password": "hunter2"},
            "admin_auth": {"bearer_token": "hunter2", "username": "a", "password": "hunter2"},
        },
        "broker": {"sasl_password": "hunter2"},
        "api": {
            "auth": {"bearer_token": "hunter2", "username": "a", "password": "hunter2"},
            "admin_url": "https://me:hunter2@a.example",
            "admin_token": "hunter2",
        },
        "playground": {"auth": {"bearer_token": "hunter2", "username": "a", "password": "hunter2"}},
        **{
            group: {
                "url": "https://me:hunter2@a.example/write",
                "bearer_token": "hunter2",
                "username": "a",
                "password": "hunter2",
                "headers": {"Authorization": "hunter2"},
            }
            for group in ("sink", "pull")
        },
    }
    settings = Settings.model_validate(tree)
    for path in secrets(Settings):
        value: Any = settings
        for name in path:
            value = getattr(value, name)
        assert isinstance(value, SecretStr), path
        assert value.get_secret_value() == "hunter2"
    assert settings.sink.headers["Authorization"].get_secret_value() == "hunter2"
    assert settings.sink.url == "https://me:hunter2@a.example/write"
    shown = settings.model_dump_json()
    assert "hunter2" not in shown
    assert "a.example/write" in shown


def test_an_address_that_is_refused_does_not_show_its_password() -> None:
    with pytest.raises(ValidationError) as raised:
        Settings.model_validate({"sink": {"url": "ftp://me:hunter2@a.example"}})
    assert "hunter2" not in raised.value.errors()[0]["msg"]


@pytest.mark.parametrize("model", [*GROUPS, Pipeline, ScoreOptions])
def test_names_have_units_where_values_are_measured(model: type[BaseModel]) -> None:
    measured = ("timeout", "wait", "retention", "ttl", "interval", "lateness", "backoff")
    for name in model.model_fields:
        if any(word in name.split("_") for word in measured):
            assert name.endswith(("_s", "_ms")), name
