"""The client against a server that fails in every way: nothing is lost, nothing is sent for ever."""

import asyncio
import contextlib
import email.utils
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web

from messages import named
from openanomaly.adapters.remote_write.client import RemoteWriteClient, backoff_s, retry_after_s
from openanomaly.adapters.remote_write.client import Target as To
from openanomaly.adapters.remote_write.encode import ScoreEncoder, pack
from openanomaly.errors import ConfigError, RejectedError, RequestTooLargeError
from parts.part import HOST, free_port
from scores import samples, score_frame
from targets import Target
from waiting import until

BODY = pack(ScoreEncoder().encode(score_frame([named("load", host="a")], score=[0.5])).parts)
QUICK: dict[str, Any] = {"backoff_min_s": 0.001, "backoff_max_s": 0.01, "timeout_s": 5.0}


@contextlib.asynccontextmanager
async def client_of(target: Target, **settings: Any) -> Any:
    codes: list[str] = []
    client = RemoteWriteClient(
        To(**{"url": target.url, **QUICK, **settings}), lambda code, seconds: codes.append(code)
    )
    try:
        yield client, codes
    finally:
        await client.close()


def against(test: Callable[[Target], Awaitable[None]]) -> None:
    async def run() -> None:
        async with Target().running() as target:
            await test(target)

    asyncio.run(run())


def test_a_request_is_what_a_target_expects() -> None:
    async def test(target: Target) -> None:
        async with client_of(target, headers={"X-Scope-OrgID": "tenant-1"}) as (client, codes):
            await client.send(BODY)
        assert target.taken == samples(BODY)
        assert codes == ["204"]
        (headers,) = target.seen
        assert headers["Content-Type"] == "application/x-protobuf"
        assert headers["Content-Encoding"] == "snappy"
        assert headers["X-Prometheus-Remote-Write-Version"] == "0.1.0"
        assert headers["X-Scope-OrgID"] == "tenant-1"
        assert "Authorization" not in headers

    against(test)


@pytest.mark.parametrize(
    "answer", [500, 502, 503, 429, 404, 408, 401, 403, 405, 301, 307, "close", "noise", "hang"]
)
def test_what_may_pass_later_is_sent_until_it_does(answer: int | str) -> None:
    async def test(target: Target) -> None:
        target.answer(answer, times=3)
        async with client_of(target, timeout_s=0.7 if answer == "hang" else 5.0) as (client, codes):
            sending = asyncio.create_task(client.send(BODY))
            await until(lambda: len(target.seen) >= 2)
            assert not client.is_up
            assert client.error
            await sending
            assert client.is_up
            assert client.error is None
        code = str(answer) if isinstance(answer, int) else "error"
        assert codes == [code, code, code, "204"]
        assert target.taken == samples(BODY)

    against(test)


@pytest.mark.parametrize("status", [400, 409, 413, 422])
def test_what_will_never_pass_is_refused_with_the_words_of_the_target(status: int) -> None:
    async def test(target: Target) -> None:
        target.answer(web.Response(status=status, text="out of order\n  sample " + "x" * 10_000))
        async with client_of(target) as (client, codes):
            with pytest.raises(RejectedError, match=rf"answers {status}: out of order sample xxx") as caught:
                await client.send(BODY)
            assert client.is_up, "a target that refuses a sample works"
        assert len(str(caught.value)) < 1000
        assert isinstance(caught.value, RequestTooLargeError) == (status == 413)
        assert codes == [str(status), "204"], "it was asked whether it takes anything"

    against(test)


def test_behind_a_wrong_path_nothing_is_refused_for_good() -> None:
    """VictoriaMetrics answers 400 there: for ever, and to everything."""

    async def test(target: Target) -> None:
        target.script = lambda found: web.Response(status=400, text="unsupported path")
        async with client_of(target) as (client, codes):
            sending = asyncio.create_task(client.send(BODY))
            await until(lambda: len(codes) >= 6)
            assert not client.is_up
            assert "unsupported path" in client.error
            assert "write address" in client.error
            target.script = []
            await sending
        assert target.taken == samples(BODY)

    against(test)


def test_a_target_that_took_something_is_believed_when_it_refuses() -> None:
    async def test(target: Target) -> None:
        async with client_of(target) as (client, codes):
            await client.send(BODY)
            target.answer(400, times=2)
            for _ in range(2):
                with pytest.raises(RejectedError):
                    await client.send(BODY)
        assert codes == ["204", "400", "400"]

    against(test)


def test_an_address_without_a_path_is_the_usual_one() -> None:
    async def test(target: Target) -> None:
        for url in (target.url.removesuffix("/api/v1/write"), target.url.removesuffix("api/v1/write")):
            async with client_of(target, url=url) as (client, _):
                assert client.shown == target.url
                await client.send(BODY)
        assert target.taken == 2 * samples(BODY)

    against(test)


def test_a_redirect_is_not_followed_with_our_credentials() -> None:
    async def test(target: Target) -> None:
        async with Target().running() as other:
            target.answer(web.Response(status=307, headers={"Location": other.url}))
            async with client_of(target, bearer_token="secret") as (client, codes):
                await client.send(BODY)
            assert codes == ["307", "204"]
            assert other.seen == []

    against(test)


def test_a_target_that_is_not_there_yet_gets_everything_when_it_is() -> None:
    async def run() -> None:
        target = Target()
        async with client_of(target) as (client, codes):
            sending = asyncio.create_task(client.send(BODY))
            await until(lambda: len(codes) >= 3)
            assert not client.is_up
            async with target.running():
                await sending
        assert target.taken == samples(BODY)

    asyncio.run(run())


def test_a_target_that_restarts_between_two_requests_gets_both() -> None:
    async def run() -> None:
        target = Target()
        async with client_of(target) as (client, _):
            for _ in range(2):
                async with target.running():
                    await client.send(BODY)
        assert target.taken == 2 * samples(BODY)

    asyncio.run(run())


def test_sending_ends_when_it_is_cancelled() -> None:
    async def test(target: Target) -> None:
        target.answer(503, times=10_000)
        async with client_of(target) as (client, codes):
            sending = asyncio.create_task(client.send(BODY))
            await until(lambda: len(codes) >= 3)
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
        assert target.taken == []

    against(test)


def guarded(target: Target, wanted: str) -> None:
    target.script = lambda found: None if target.seen[-1].get("Authorization") == wanted else 401


def test_a_rotated_token_heals_without_a_restart(tmp_path: Path) -> None:
    async def test(target: Target) -> None:
        file = tmp_path / "token"
        file.write_text("old\n")
        guarded(target, "Bearer old")
        async with client_of(target, bearer_token_file=str(file)) as (client, codes):
            await client.send(BODY)
            guarded(target, "Bearer new")
            sending = asyncio.create_task(client.send(BODY))
            await until(lambda: codes.count("401") >= 2)
            assert "sink.bearer_token" in client.error
            file.unlink()  # in the middle of a rotation there may be no file, or an empty one
            await asyncio.sleep(0.02)
            file.write_text("")
            await asyncio.sleep(0.02)
            file.write_text("new\n")
            await sending
        assert target.taken == 2 * samples(BODY)

    against(test)


@pytest.mark.parametrize("where", ["settings", "file", "url"])
def test_basic_authentication(tmp_path: Path, where: str) -> None:
    async def test(target: Target) -> None:
        (tmp_path / "password").write_text("p:ä\n")
        guarded(target, "Basic dXNlcjpwOsOk")  # user:p:ä
        settings: dict[str, Any] = {
            "settings": {"username": "user", "password": "p:ä"},
            "file": {"username": "user", "password_file": str(tmp_path / "password")},
            "url": {"url": target.url.replace("http://", "http://user:p%3A%C3%A4@")},
        }[where]
        async with client_of(target, **settings) as (client, codes):
            await client.send(BODY)
        assert codes == ["204"]

    against(test)


def test_secrets_are_not_shown() -> None:
    async def run() -> None:
        target = Target()
        url = target.url.replace("http://", "http://user:hidden@") + "?key=hidden"
        async with client_of(target, url=url) as (client, codes):
            sending = asyncio.create_task(client.send(BODY))
            await until(lambda: codes)
            sending.cancel()
            assert "hidden" not in client.error
            assert str(target.port) in client.error
            assert client.shown == target.url
        assert "hidden" not in repr(To("http://x", bearer_token="hidden", password="hidden"))

    asyncio.run(run())


def server_tls(authority: trustme.CA, clients: trustme.CA | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST).configure_cert(context)
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        clients.configure_trust(context)
    return context


def test_tls_with_a_certificate_of_our_own_that_is_renewed(tmp_path: Path) -> None:
    """mTLS: the first certificate is of an authority that the target does not know."""
    authority, ours, other = trustme.CA(), trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    pem, key = tmp_path / "client.pem", tmp_path / "client.key"

    def issue(issuer: trustme.CA) -> None:
        made = issuer.issue_cert("openanomaly")
        key.write_bytes(made.private_key_pem.bytes())
        pem.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))

    async def run() -> None:
        issue(other)
        files = {"ca_file": str(tmp_path / "ca.pem"), "cert_file": str(pem), "key_file": str(key)}
        async with Target(tls=server_tls(authority, ours)).running() as target:
            async with client_of(target, **files) as (client, codes):
                sending = asyncio.create_task(client.send(BODY))
                await until(lambda: len(codes) >= 2)
                assert target.seen == []
                issue(ours)
                await sending
            assert target.taken == samples(BODY)

    asyncio.run(run())


def test_a_target_that_cannot_prove_who_it_is_gets_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        async with Target(tls=server_tls(trustme.CA())).running() as target:
            async with client_of(target) as (client, codes):
                sending = asyncio.create_task(client.send(BODY))
                await until(lambda: len(codes) >= 2)
                sending.cancel()
                assert "certificate" in client.error.lower()
            assert target.seen == []

    asyncio.run(run())


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"bearer_token_file": "/nowhere"}, "sink.bearer_token_file=/nowhere"),
        ({"username": "u"}, "sink.password"),
        ({"username": "u", "password_file": "/nowhere"}, "sink.password_file=/nowhere"),
        ({"username": "u", "password": "p", "bearer_token": "t"}, "both set"),
        ({"username": "u:v", "password": "p"}, "sink.username='u:v'"),
        ({"ca_file": "/nowhere"}, "/nowhere"),
        ({"cert_file": __file__}, "sink.cert_file"),
        ({"key_file": "/nowhere"}, "needs sink.cert_file"),
        ({"headers": {"X-A": "1\r\nX-B: 2"}}, "sink.headers"),
        ({"url": "http://127.0.0.1:99999/"}, "sink.url"),
    ],
)
def test_settings_that_cannot_work_refuse_to_start(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        RemoteWriteClient(To(**{"url": f"http://{HOST}:{free_port()}", **settings}))


def test_waits_grow_within_their_bounds_and_grant_what_the_target_asks_for() -> None:
    for failures in (0, 1, 5, 10_000):
        waits = [backoff_s(failures, 0.1, 30.0) for _ in range(200)]
        assert min(waits) >= 0.1
        assert max(waits) <= min(30.0, 0.1 * 2 ** min(failures + 1, 60))
        assert len(set(waits)) > 100, "senders must not come back together"
    assert backoff_s(0, 0.1, 30.0, retry_after_s=60.0) == 60.0
    assert backoff_s(0, 0.1, 30.0, retry_after_s=1e9) == 300.0


def test_retry_after_is_a_number_or_a_date() -> None:
    assert retry_after_s("7") == 7.0
    assert retry_after_s(email.utils.formatdate(time.time() + 100, usegmt=True)) == pytest.approx(100, abs=2)
    assert [retry_after_s(x) for x in (None, "", "soon", "-5", "nan")] == [0.0] * 5
    assert retry_after_s("Thu, 01 Jan 1970 00:00:00 GMT") == 0.0


def test_retry_after_of_an_answer_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(target: Target) -> None:
        target.answer(web.Response(status=503, headers={"Retry-After": "77"}))
        slept: list[float] = []
        really = asyncio.sleep

        async def sleep(seconds: float) -> None:
            slept.append(seconds)
            await really(0)

        async with client_of(target) as (client, _):
            monkeypatch.setattr("openanomaly.adapters.remote_write.client.asyncio.sleep", sleep)
            await client.send(BODY)
            monkeypatch.undo()
        assert 77.0 in slept

    against(test)
