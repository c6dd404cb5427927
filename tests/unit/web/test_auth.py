"""Who may call what: the receiver's credentials, the admin's, and what is open."""

import asyncio
import base64
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from openanomaly.settings import AuthSettings, WebSettings
from openanomaly.web.auth import ADMIN, Credentials, middleware

AUTH = {"bearer_token": "t0ken", "username": "me", "password": "pa:ss"}
BASIC = "Basic " + base64.b64encode(b"me:pa:ss").decode()
WRONG = "Basic " + base64.b64encode(b"me:pa").decode()


def status(settings: dict[str, Any], path: str, **headers: str) -> int:
    async def answer(request: web.Request) -> web.Response:
        return web.Response()

    async def run() -> int:
        app = web.Application(middlewares=[middleware(WebSettings.model_validate(settings))])  # type: ignore[list-item]
        app.router.add_route("*", "/{path:.*}", answer)
        async with TestClient(TestServer(app)) as client, client.get(path, headers=headers) as got:
            return got.status

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Bearer t0ken", 200),
        ("bearer t0ken", 200),
        (BASIC, 200),
        ("Bearer t0ke", 401),
        ("Bearer ", 401),
        (WRONG, 401),
        ("Basic %%%", 401),
        ("", 401),
    ],
)
@pytest.mark.parametrize("path", ["/api/v1/write", ADMIN + "status"])
def test_only_who_shows_credentials_is_answered(header: str, expected: int, path: str) -> None:
    assert status({"auth": AUTH}, path, Authorization=header) == expected


@pytest.mark.parametrize("path", ["/-/healthy", "/-/ready", "/metrics"])
def test_probes_and_scrapes_need_none(path: str) -> None:
    assert status({"auth": AUTH}, path) == 200


def test_the_admin_api_may_have_credentials_of_its_own() -> None:
    settings = {"auth": AUTH, "admin_auth": {"bearer_token": "root"}}
    assert status(settings, ADMIN + "status", Authorization="Bearer t0ken") == 401
    assert status(settings, ADMIN + "status", Authorization="Bearer root") == 200
    assert status(settings, "/api/v1/write", Authorization="Bearer root") == 401


def test_without_credentials_the_admin_api_answers_this_machine_only() -> None:
    assert status({}, ADMIN + "status") == 200
    assert status({}, ADMIN + "status", **{"X-Forwarded-For": "10.0.0.1"}) == 403


@pytest.mark.parametrize(
    ("auth", "expected"),
    [
        (AUTH, ['Basic realm="openanomaly"', "Bearer"]),
        ({"bearer_token": "t0ken"}, ["Bearer"]),
        ({"username": "me", "password": "pass"}, ['Basic realm="openanomaly"']),
    ],
)
def test_who_is_refused_hears_what_to_show(auth: dict[str, str], expected: list[str]) -> None:
    credentials = Credentials(AuthSettings.model_validate(auth), "web.auth")
    assert credentials.wanted.getall("WWW-Authenticate") == expected
