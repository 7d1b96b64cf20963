"""Pauses in long work, so that streams go on meanwhile."""

from __future__ import annotations

import asyncio
import time

SLICE_SECONDS = 0.002
"""How long work may hold the event loop at a time."""


class Pauses:
    """Says when a slice of work is over, and lets the event loop go on then."""

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until = time.perf_counter() + SLICE_SECONDS

    @property
    def due(self) -> bool:
        """Whether it is time for one."""
        return time.perf_counter() > self._until

    async def take(self) -> None:
        """Let the others go on."""
        await asyncio.sleep(0)
        self._until = time.perf_counter() + SLICE_SECONDS
