"""Waiting for a condition, with a deadline: never a sleep that hopes to be long enough."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def until(probe: Callable[[], Awaitable[T | None]], what: str, seconds: float = 10.0, every: float = 0.01) -> T:
    """Ask `probe` every `every` seconds for something true, and give it.

    Raises:
        TimeoutError: nothing true came within `seconds`; the text says `what` was waited for, and the last answer.
    """
    deadline = time.monotonic() + seconds
    while True:
        value = await probe()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s for {what}; the last answer was {value!r}")
        await asyncio.sleep(every)
