"""Who is answered, and what is counted."""

from pathlib import Path

import pytest

from unit.api.calls import PIPELINES, Api

AUTH = {"bearer_token": "sesame", "username": "me", "password": "hunter2"}


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401),
        ("Bearer sesame", 200),
        ("bearer sesame", 200),
        ("Bearer Sesame", 401),
        ("Bearer", 401),
        ("Basic bWU6aHVudGVyMg==", 200),
        ("Basic bWU6aHVudGVyMw==", 401),
    ],
)
def test_credentials_are_asked_for_wherever_the_caller_is(
    tmp_path: Path, header: str | None, status: int
) -> None:
    for caller in ("127.0.0.1", "192.0.2.7"):
        headers = {} if header is None else {"Authorization": header}
        answer = Api(tmp_path, caller=caller, auth=AUTH)("GET", PIPELINES, headers=headers)
        assert answer.status_code == status
        if status == 401:
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert answer.headers.get_list("WWW-Authenticate") == ['Basic realm="openanomaly"', "Bearer"]


def test_a_token_may_hold_any_letters(tmp_path: Path) -> None:
    api = Api(tmp_path, auth={"bearer_token": "sésame"})
    for token, status in (("sésame", 200), ("sesame", 401)):
        answer = api("GET", PIPELINES, headers={"Authorization": f"Bearer {token}".encode()})  # type: ignore
        assert answer.status_code == status


@pytest.mark.parametrize("path", ["/-/healthy", "/-/ready", "/metrics"])
def test_probes_and_scrapes_carry_none(tmp_path: Path, path: str) -> None:
    assert Api(tmp_path, caller="192.0.2.7", auth=AUTH)("GET", path).status_code == 200
    assert Api(tmp_path, caller="192.0.2.7")("GET", path).status_code == 200


@pytest.mark.parametrize("path", [PIPELINES, "/openapi.json", "/docs", "/api/v1/schema", "/nothing"])
def test_everything_else_does(tmp_path: Path, path: str) -> None:
    assert Api(tmp_path, auth=AUTH)("GET", path).status_code == 401


@pytest.mark.parametrize(
    ("caller", "headers", "status"),
    [
        ("127.0.0.1", {}, 200),
        ("::1", {}, 200),
        ("::ffff:127.0.0.1", {}, 200),
        ("127.0.0.1", {"Host": "[::1]:9202"}, 200),
        ("192.0.2.7", {}, 403),
        ("127.0.0.1", {"X-Forwarded-For": "192.0.2.7"}, 403),
        ("127.0.0.1", {"Forwarded": "for=192.0.2.7"}, 403),
        # A page of a stranger, whose name has become that of this machine.
        ("127.0.0.1", {"Host": "evil.example:9202"}, 403),
    ],
)
def test_without_credentials_only_this_machine_is_answered(
    tmp_path: Path, caller: str, headers: dict[str, str], status: int
) -> None:
    answer = Api(tmp_path, caller=caller)("GET", PIPELINES, headers=headers)
    assert answer.status_code == status
    assert status == 200 or "api.auth" in answer.json()["detail"]


def test_head_is_get_without_a_body(tmp_path: Path) -> None:
    api = Api(tmp_path)
    head, got = api("HEAD", PIPELINES), api("GET", PIPELINES)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == got.headers["Content-Length"] == str(len(got.content))


def test_no_other_origin_is_let_in(tmp_path: Path) -> None:
    answer = Api(tmp_path)("GET", PIPELINES, headers={"Origin": "https://evil.example"})
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]


def test_requests_are_counted_by_route_and_status(tmp_path: Path) -> None:
    api = Api(tmp_path)
    for path in (f"{PIPELINES}/a", f"{PIPELINES}/b", PIPELINES, "/nothing"):
        api("GET", path)
    lines = api("GET", "/metrics").text.splitlines()
    counted = {line for line in lines if line.startswith("openanomaly_api_requests_total")}
    assert counted == {
        'openanomaly_api_requests_total{code="404",path="/api/v1/pipelines/{name}"} 2.0',
        'openanomaly_api_requests_total{code="200",path="/api/v1/pipelines"} 1.0',
        'openanomaly_api_requests_total{code="404",path="none"} 1.0',
    }
