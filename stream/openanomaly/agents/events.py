"""Events that tasks of one room tell each other."""

import asyncio


async def noticed(event: asyncio.Event, timeout_s: float | None = None) -> None:
    """Wait for the next `set` of an event, or one that has not been noticed."""
    try:
        await asyncio.wait_for(event.wait(), timeout_s)
    except TimeoutError:
        return
    event.clear()
