"""A process that speaks TLS, asks for certificates and credentials: what it takes, from whom."""

import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import trustme

from e2e.pushed import Fleet
from e2e.sender import HEADERS, request
from parts.part import wait_until
from parts.product import Product

TOKEN, ROOT = "t0ken", "r00t"


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def product(tmp_path: Path, authority: trustme.CA) -> Iterator[Product]:
    cert = authority.issue_cert("127.0.0.1")
    files = {name: str(tmp_path / name) for name in ("cert", "key", "ca", "token")}
    cert.cert_chain_pems[0].write_to_path(files["cert"])
    cert.private_key_pem.write_to_path(files["key"])
    authority.cert_pem.write_to_path(files["ca"])
    Path(files["token"]).write_text(TOKEN)
    web = {
        "tls": {"cert_file": files["cert"], "key_file": files["key"], "client_ca_file": files["ca"]},
        "auth": {"bearer_token_file": files["token"], "username": "me", "password": "word"},
        "admin_auth": {"bearer_token": ROOT},
    }
    found = Product(
        tmp_path,
        "--broker",
        f"embedded://{tmp_path / 'broker'}",
        config={"web": web, "broker": {"partitions": 2}, "pipelines": [{"name": "all"}]},
    )
    found.url = found.url.replace("http:", "https:")
    found.process.start()
    try:
        yield found
    finally:
        found.stop()


def test_only_known_senders_with_credentials_are_served(
    tmp_path: Path, product: Product, authority: trustme.CA
) -> None:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    stranger = ssl.create_default_context()
    authority.configure_trust(stranger)
    authority.issue_cert("sender.test").configure_cert(context)
    body = request(Fleet(hosts=2, steps=2).samples(0, 2))

    def ask(
        path: str, authorization: str | None = None, data: bytes | None = None, tls: ssl.SSLContext = context
    ) -> int:
        headers: Mapping[str, str] = {} if data is None else HEADERS
        shown = {} if authorization is None else {"Authorization": authorization}
        asked = urllib.request.Request(f"{product.url}{path}", data, {**headers, **shown})
        try:
            with urllib.request.urlopen(asked, timeout=10, context=tls) as answer:
                status: int = answer.status
                return status
        except urllib.error.HTTPError as exc:
            return exc.code

    wait_until(lambda: ask("/-/ready") == 200, "readiness", 60)
    write, status = "/api/v1/write", "/api/v1/admin/status"
    assert ask(write, f"Bearer {TOKEN}", body) == 204
    assert ask(write, "Basic bWU6d29yZA==", body) == 204
    assert ask(write, None, body) == ask(write, f"Bearer {ROOT}", body) == 401
    assert ask(status, f"Bearer {ROOT}") == 200
    assert ask(status, f"Bearer {TOKEN}") == ask(status) == 401
    (tmp_path / "token").write_text("an0ther")
    assert ask(write, f"Bearer {TOKEN}", body) == 401
    assert ask(write, "Bearer an0ther", body) == 204
    with pytest.raises(OSError, match=r"(?i)certificate|reset|closed|EOF"):
        ask(write, "Bearer an0ther", body, stranger)
    with urllib.request.urlopen(f"{product.url}/metrics", timeout=10, context=context) as answer:
        assert b'openanomaly_receiver_requests_total{code="204",version="1.0"} 3.0' in answer.read()
