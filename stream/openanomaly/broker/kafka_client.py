"""What the producer and the consumer of Kafka have in common."""

import asyncio
import contextlib

import aiokafka

REQUEST_TIMEOUT_S = 30.0
"""A node that vanished without a word is noticed after this; then the batch goes to the next leader."""
CHECK_S = 1.0
"""How often is looked whether a task that aiokafka depends on has died."""
CLOSE_S = 0.5
"""Longest wait for what needs no answer of a broker."""
GONE = "the group has gone on without this process, which was silent for too long"


async def abort(client: aiokafka.client.AIOKafkaClient) -> None:
    """Let go of a client's connections, whatever they were to send, and though nobody reads it."""
    for connection in client._conns.values():
        if connection._writer is not None:
            connection._writer.transport.abort()
    with contextlib.suppress(Exception):  # what ended its tasks before is told by those
        await asyncio.wait_for(client.close(), CLOSE_S)
    await asyncio.sleep(0)  # asyncio closes a socket one turn after its transport
