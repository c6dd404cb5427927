"""Records that can never be used, set aside with their reason."""

import logging
import time
from typing import TYPE_CHECKING

from openanomaly.broker.faust_app import declare, publish
from openanomaly.broker.topics import MAX_RECORD_BYTES, Topics
from openanomaly.pb.openanomaly.v1 import frames_pb2 as pb

if TYPE_CHECKING:
    from openanomaly.broker.faust_app import App

log = logging.getLogger(__name__)

_VERSION = 1
_DETAIL_LIMIT = 2000
_KEY_LIMIT = 32 * 1024
_PAYLOAD_LIMIT = MAX_RECORD_BYTES - 64 * 1024


class DeadLetters:
    """Writes to the dead-letter topic."""

    def __init__(self, app: "App", topics: Topics) -> None:
        self._app = app
        self._topic = topics.dead_letter.name
        declare(app, topics.dead_letter)

    async def set_aside(
        self,
        topic: str,
        partition: int,
        offset: int,
        key: bytes | None,
        value: bytes | None,
        detail: str,
        reason: str,
    ) -> None:
        """Keep a record and why it was refused; returns once the broker has it."""
        log.error("%s[%d] offset %d set aside (%s): %s", topic, partition, offset, reason, detail)
        key, value = key or b"", value or b""
        detail = detail[:_DETAIL_LIMIT]
        # Nothing we write is so long, but others can write it; what cannot be set aside comes for ever.
        if len(key) > _KEY_LIMIT:
            detail += f" (first {_KEY_LIMIT} of {len(key)} bytes of the key kept)"
            key = key[:_KEY_LIMIT]
        if len(value) > _PAYLOAD_LIMIT:
            detail += f" (first {_PAYLOAD_LIMIT} of {len(value)} bytes kept)"
            value = value[:_PAYLOAD_LIMIT]
        letter = pb.DeadLetter(
            version=_VERSION,
            reason=reason,
            topic=topic,
            partition=partition,
            offset=offset,
            detail=detail,
            key=key,
            payload=value,
            noted_ms=int(time.time() * 1000),
            set_aside=True,
        )
        await publish(self._app, self._topic, [(0, None, letter.SerializeToString())])
