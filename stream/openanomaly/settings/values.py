"""Values that several groups of settings have: secrets, addresses."""

import re
from collections.abc import Callable
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, PlainSerializer, SecretStr

Secret = Annotated[SecretStr, Field(min_length=1)]
"""Never shown. An empty one would let everybody in."""


def without_secrets(url: str) -> str:
    """A password may stand in a URL; who reads settings or errors must not read it."""
    return re.sub(r"//[^/]*@", "//**********@", url)


def _listen(value: str) -> str:
    host, colon, port = value.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535 or (":" in host and not host.startswith("[")):
        raise ValueError(f"expected HOST:PORT or :PORT with a port up to 65535, found {value!r}")
    return value


def _http(example: str) -> Callable[[str], str]:
    def check(value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"expected {example}, found {without_secrets(value)!r}")
        return value

    return check


ListenAddress = Annotated[str, AfterValidator(_listen)]
"""HOST:PORT or :PORT that a server of ours has."""
HttpUrl = Annotated[str, AfterValidator(_http("http://HOST:PORT")), PlainSerializer(without_secrets)]
"""Address of a server that we ask."""
WriteUrl = Annotated[
    str, AfterValidator(_http("http://HOST:PORT/api/v1/write")), PlainSerializer(without_secrets)
]
"""Address of a server that takes remote-write."""
