"""Waiting for something to happen, not for time to pass."""

import asyncio
from collections.abc import Callable
from typing import Any


async def until(is_true: Callable[[], Any], timeout_s: float = 20.0) -> None:
    """Returns as soon as `is_true()`."""
    async with asyncio.timeout(timeout_s):
        while not is_true():  # noqa: ASYNC110 (nothing tells)
            await asyncio.sleep(0.001)
