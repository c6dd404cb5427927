"""What goes wrong is told as RFC 9457 has it: each value with its place, and nothing of our insides."""

from pathlib import Path
from typing import Any

import pytest

from unit.api.calls import PIPELINES, Api, Away, Broken

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def api(tmp_path: Path) -> Api:
    return Api(tmp_path)


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "detail"),
    [
        ("GET", "/api/v1/nothing", {}, 404, "there is nothing at /api/v1/nothing"),
        ("GET", PIPELINES + "/", {}, 404, "there is nothing at"),
        ("GET", PIPELINES + "/web", {}, 404, "there is no pipeline 'web' in"),
        ("PATCH", PIPELINES, {}, 405, "it takes GET, POST"),
        ("POST", PIPELINES + "/web", {}, 405, "it takes DELETE, GET, PUT"),
        ("GET", PIPELINES, {"headers": {"Accept": "text/html"}}, 406, "Accept is 'text/html'"),
        ("GET", PIPELINES, {"headers": {"Accept": "application/json;q=0, */*"}}, 406, "the answer is"),
        ("POST", PIPELINES, {"content": b"{}"}, 415, "Content-Type is None"),
        (
            "POST",
            PIPELINES,
            {"content": b"{}", "headers": {"Content-Type": "text/plain"}},
            415,
            "'text/plain'",
        ),
        (
            "POST",
            PIPELINES,
            {"content": b"{}", "headers": {"Content-Type": "application/json; charset=latin-1"}},
            415,
            "in UTF-8",
        ),
        (
            "POST",
            PIPELINES,
            {"content": b"{}", "headers": {**JSON, "Content-Encoding": "gzip"}},
            415,
            "'gzip'",
        ),
        ("POST", PIPELINES, {"content": b"", "headers": JSON}, 400, "the body is not JSON"),
        ("POST", PIPELINES, {"content": b'{"name": NaN}', "headers": JSON}, 400, "JSON has no NaN"),
        (
            "POST",
            PIPELINES,
            {"content": b'{"name":"a","name":"b"}', "headers": JSON},
            400,
            "'name' is given twice",
        ),
        ("POST", PIPELINES, {"content": b'{"name":"\xff"}', "headers": JSON}, 400, "byte 9 is 0xff"),
        ("POST", PIPELINES, {"content": b"[" * 9999, "headers": JSON}, 400, "nested too deeply"),
        ("POST", PIPELINES, {"content": b'{"name":"\\udc00"}', "headers": JSON}, 400, "surrogate"),
        ("POST", PIPELINES, {"content": b" " * 262_145, "headers": JSON}, 413, "raise api.body_limit_bytes"),
    ],
)
def test_every_problem_has_its_media_type_status_and_words(
    api: Api, method: str, path: str, options: dict[str, Any], status: int, detail: str
) -> None:
    answer = api(method, path, **options)
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    found = answer.json()
    assert (found["status"], found["instance"], found["type"]) == (status, path, "about:blank")
    assert detail in found["detail"]
    if status == 405:
        assert answer.headers["Allow"] == found["detail"].rpartition("it takes ")[2]


@pytest.mark.parametrize(
    ("value", "pointer", "detail", "shown"),
    [
        ({"name": "a", "step_s": "60"}, "/step_s", "it should be a valid number", "60"),
        ({"name": "a", "step_s": True}, "/step_s", "it should be a valid number", True),
        ({"name": "a", "score": {"tolerance": 11}}, "/score/tolerance", "less than or equal to 10", 11),
        ({"name": "a", "score": {"toleranc": 1}}, "/score/toleranc", "did you mean tolerance?", 1),
        ({"name": "a", "a/b~c": 1}, "/a~1b~0c", "there is no option of that name", 1),
        ({}, "/name", "it is missing", None),
        ([], "", "expected an object", None),
        ({"name": "a", "selector": "{"}, "/selector", "cannot parse selector '{'", "{"),
        ({"name": "a", "score": {"mute": [{"start": 22}]}}, "/score/mute/0/start", "a valid time", 22),
        (
            {"name": "a", "min_context": 512, "context": 64},
            "",
            "min_context=512 is more than context=64",
            None,
        ),
        ({"name": "a\n"}, "/name", "it should match", "a\n"),
        ({"name": ".."}, "/name", "no address can hold it", ".."),
        ({"name": "a", "selector": "x" * 300 + "{"}, "/selector", "cannot parse", "x" * 200 + "…"),
    ],
)
def test_each_wrong_value_is_named_with_its_place(
    api: Api, value: Any, pointer: str, detail: str, shown: Any
) -> None:
    answer = api("POST", PIPELINES, json=value)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["pointer"] == pointer
    assert detail in error["detail"]
    assert error.get("value") == shown
    assert error["detail"] in answer.json()["detail"]


def test_all_that_is_wrong_is_said_at_once(api: Api) -> None:
    answer = api("POST", "/api/v1/validate", json={"name": "!", "step_s": 0, "horizon": 1.5})
    assert [e["pointer"] for e in answer.json()["errors"]] == ["/name", "/step_s", "/horizon"]


@pytest.mark.parametrize(
    ("query", "parameter", "detail"),
    [
        ("limit=0", "limit", "greater than or equal to 1"),
        ("limit=1001", "limit", "less than or equal to 1000"),
        ("limit=1.0", "limit", "expected digits"),
        ("limit=2&limit=3", "limit", "given twice"),
        ("cursor=!", "cursor", "not taken from `next`"),
        ("limits=3", "limits", "there are cursor, limit"),
    ],
)
def test_parameters_are_named(api: Api, query: str, parameter: str, detail: str) -> None:
    answer = api("GET", f"{PIPELINES}?{query}")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["parameter"] == parameter
    assert detail in answer.json()["errors"][0]["detail"]


def test_the_name_of_the_address_holds(api: Api) -> None:
    answer = api("PUT", f"{PIPELINES}/a", json={"name": "b"})
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"pointer": "/name", "detail": "the address says 'a'", "value": "b"}]


@pytest.mark.parametrize(
    ("method", "path"), [("GET", PIPELINES), ("GET", f"{PIPELINES}/a"), ("PUT", f"{PIPELINES}/a")]
)
def test_a_store_that_is_away_is_to_be_asked_again(method: str, path: str) -> None:
    answer = Api(Away())(method, path, **({"json": {}} if method == "PUT" else {}))
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert answer.json()["detail"] == "cannot reach mongodb://away/x"


def test_probes_say_that_the_store_is_away() -> None:
    api = Api(Away())
    assert api("GET", "/-/healthy").status_code == 200
    answer = api("GET", "/-/ready")
    assert (answer.status_code, answer.json()["reasons"]) == (503, {"store": "cannot reach mongodb://away/x"})


def test_an_error_that_nobody_has_thought_of_tells_nothing() -> None:
    answer = Api(Broken())("GET", PIPELINES)
    assert (answer.status_code, answer.headers["Content-Type"]) == (500, "application/problem+json")
    assert "hunter2" not in answer.text
    assert "KeyError" not in answer.text
