"""What stands in requests and answers besides addresses: bodies, media types that are taken, entity tags."""

import asyncio
import json
import re
from collections.abc import Iterable
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from openanomaly.api.invalid import Invalid
from openanomaly.api.problems import ProblemError
from openanomaly.core.pipelines import document

JSON = "application/json"
_AT_ONCE_BYTES = 64 << 10
_TAG = re.compile(r'\s*(W/)?"([\x21\x23-\x7e\x80-\xff]*)"\s*(?:,|$)')


async def read_json(request: Request, limit_bytes: int, setting: str) -> Any:
    """The value of a JSON body.

    Raises:
        ProblemError, MalformedRequestError: it is no JSON, or too large; 400, 413, 415.
    """
    media, _, parameters = request.headers.get("Content-Type", "").partition(";")
    if media.strip().lower() != JSON or not _is_utf8(parameters):
        shown = request.headers.get("Content-Type")
        raise ProblemError(
            415, f"Content-Type is {shown!r}; the body has to be {JSON}, in UTF-8", headers={"Accept": JSON}
        )
    coding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if coding != "identity":
        raise ProblemError(415, f"Content-Encoding is {coding!r}; the body must not be packed")
    body = await _read(request, limit_bytes, setting)
    if len(body) > _AT_ONCE_BYTES:  # others are answered meanwhile
        return await asyncio.to_thread(document.parse, body)
    return document.parse(body)


def _is_utf8(parameters: str) -> bool:
    found = re.fullmatch(r'(?i)\s*(?:charset\s*=\s*"?([^"\s;]*)"?)?\s*;?\s*', parameters)
    return found is not None and (found[1] or "utf-8").lower() in ("utf-8", "utf8", "us-ascii")


async def _read(request: Request, limit_bytes: int, setting: str) -> bytes:
    too_large = ProblemError(
        413,
        f"the body has more than {limit_bytes} bytes; send less, or raise {setting}",
        headers={"Connection": "close"},  # the rest of it is not read
    )
    declared = request.headers.get("Content-Length", "")
    if declared.isdecimal() and int(declared) > limit_bytes:
        raise too_large
    parts, size = [], 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > limit_bytes:
                raise too_large
            parts.append(part)
    except ClientDisconnect as exc:
        raise ProblemError(400, "the body ended early") from exc
    return b"".join(parts)


def only(request: Request, known: Iterable[str] = ()) -> None:
    """Refuse query parameters that nobody reads, and those given twice: a typo must not pass for a default.

    Raises:
        ProblemError: there are some; 422.
    """
    names = sorted(set(known))
    errors, seen = [], set()
    for name, value in request.query_params.multi_items():
        if name not in names:
            allowed = f"; there are {', '.join(names)}" if names else ""
            errors.append(Invalid(parameter=name, detail=f"there is no such parameter{allowed}", value=value))
        elif name in seen:
            errors.append(Invalid(parameter=name, detail="it is given twice", value=value))
        seen.add(name)
    if errors:
        raise ProblemError(422, "; ".join(map(str, errors)), errors)


def accept(request: Request, media: str = JSON) -> None:
    """See that the caller takes what we answer (RFC 9110, section 12.5.1).

    Raises:
        ProblemError: it does not; 406.
    """
    header = ", ".join(request.headers.getlist("Accept"))
    if not header.strip():
        return
    kind = media.partition("/")[0]
    quality, best = 0.0, -1
    for each in header.split(","):
        words = [word.strip().lower() for word in each.split(";")]
        fits = {media: 2, f"{kind}/*": 1, "*/*": 0}.get(words[0], -1)
        if fits > best:
            best, quality = fits, _quality(words[1:])
    if quality == 0:
        raise ProblemError(406, f"Accept is {header!r}; the answer is {media}")


def _quality(parameters: Iterable[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


def etag(version: str) -> str:
    """The strong entity tag of a version."""
    return f'"{version}"'


def tags(header: str | None, *, weak: bool) -> list[str] | None:
    """The versions that If-Match or If-None-Match names; None for `*`.

    Tags that are weak name one only where `weak` comparison is meant. What is no list of tags names none.
    """
    text = (header or "").strip()
    if text == "*":
        return None
    found, at = [], 0
    while at < len(text):
        tag = _TAG.match(text, at)
        if tag is None:
            return []
        if weak or not tag[1]:
            found.append(tag[2])
        at = tag.end()
    return found


def to_json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """An answer of JSON."""
    return Response(json.dumps(content, allow_nan=False), status, headers, JSON)
