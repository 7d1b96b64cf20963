"""Requests that come in bursts and go out evenly."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class Pace:
    """Lets `burst` pass at once and then `rate` a second; all others wait for their turn, in order."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = 1 / rate
        self._ahead = burst / rate
        self._clock = clock
        self._next = clock() - self._ahead

    async def turn(self) -> None:
        """Wait until it is the caller's turn."""
        now = self._clock()
        self._next = max(self._next, now - self._ahead) + self._seconds
        if self._next > now:
            await asyncio.sleep(self._next - now)
