"""TLS of the web server: whose certificate a caller must show."""

import asyncio
import ssl
from pathlib import Path

import aiohttp
import pytest
import trustme
from prometheus_client import CollectorRegistry

from openanomaly.settings import TlsServerSettings, WebSettings
from openanomaly.web.server import Health, WebServer


def test_with_client_authorities_only_their_clients_are_answered(tmp_path: Path) -> None:
    ours = trustme.CA()
    cert = ours.issue_cert("127.0.0.1")
    files = {name: str(tmp_path / name) for name in ("cert", "key", "ca")}
    cert.cert_chain_pems[0].write_to_path(files["cert"])
    cert.private_key_pem.write_to_path(files["key"])
    ours.cert_pem.write_to_path(files["ca"])
    tls = TlsServerSettings(cert_file=files["cert"], key_file=files["key"], client_ca_file=files["ca"])

    def client(authority: trustme.CA | None) -> ssl.SSLContext:
        context = ssl.create_default_context()
        ours.configure_trust(context)
        if authority is not None:
            authority.issue_cert("sender.test").configure_cert(context)
        return context

    async def run() -> None:
        server = WebServer(WebSettings(listen="127.0.0.1:0", tls=tls), CollectorRegistry(), Health())
        await server.start()
        url = f"https://127.0.0.1:{server.port}/-/healthy"
        try:
            async with aiohttp.ClientSession() as session:
                async with session.get(url, ssl=client(ours)) as answer:
                    assert answer.status == 200
                for authority in (None, trustme.CA()):
                    with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
                        await session.get(url, ssl=client(authority))
        finally:
            await server.stop()

    asyncio.run(run())
