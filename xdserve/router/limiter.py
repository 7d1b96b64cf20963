"""The limit on what runs at once, and the queue before it. Reads no clock and owns no task; one event loop."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Full(Exception):
    """Nothing is free, and nobody more may wait."""


class Limiter:
    """Lets at most `limit` run at once; at most `queue` more wait, in the order in which they came.

    A place that gets free is handed to the first who waits, so that nobody who comes later can take it. Who leaves
    the queue (is cancelled) frees his place in it.
    """

    def __init__(self, limit: int, queue: int) -> None:
        if limit < 1 or queue < 0:
            raise ValueError(f"found limit {limit} and queue {queue}, allowed 1 or more and 0 or more")
        self._limit, self._queue = limit, queue
        self._running = 0
        self._peak = 0
        self._waiting: OrderedDict[asyncio.Future[None], None] = OrderedDict()

    @property
    def running(self) -> int:
        """How many run, or have just been given their place."""
        return self._running

    @property
    def peak(self) -> int:
        """The most that ever ran at once."""
        return self._peak

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Whether who comes now is refused."""
        return self._running >= self._limit and len(self._waiting) >= self._queue

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Run inside the block; before it, wait for a place if need be.

        Raises:
            Full: at once.
        """
        await self._enter()
        try:
            yield
        finally:
            self._leave()

    async def _enter(self) -> None:
        if self._running < self._limit:
            self._running += 1
            self._peak = max(self._peak, self._running)
            return
        if self.full:
            raise Full
        ticket: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[ticket] = None
        try:
            await ticket
        except asyncio.CancelledError:
            if not ticket.cancelled() and ticket.done():
                self._leave()  # the place was handed over just before
            self._waiting.pop(ticket, None)
            raise

    def _leave(self) -> None:
        while self._waiting:
            ticket, _ = self._waiting.popitem(last=False)
            if not ticket.done():
                ticket.set_result(None)
                return
        self._running -= 1
