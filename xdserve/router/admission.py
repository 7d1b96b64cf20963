"""Who gets in: bodies within the memory, requests within the limit; refusals are answers, and are counted."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from aiohttp import web

from xdserve.router import body
from xdserve.router.answers import Failure
from xdserve.router.body import Memory, OutOfMemory, Share
from xdserve.router.limiter import Full, Limiter
from xdserve.router.metrics import RouterMetrics
from xdserve.router.settings import RouterSettings

SHARE = web.RequestKey("share", Share)

_RETRY = {"Retry-After": "1"}


class Admission:
    """The limits of one router, and the metrics that show them."""

    def __init__(self, settings: RouterSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._clock = settings, clock
        self.memory = Memory(settings.held)
        self.limiter = Limiter(settings.max_concurrency, settings.waiting)
        self.metrics = RouterMetrics(self.limiter, lambda: self.memory.held)

    async def body(self, request: web.Request) -> bytes:
        """Read the body. No place is held meanwhile: a slow client does not keep others from running.

        Raises:
            Failure: 429 also before the body is read, if nobody more may wait.
        """
        if self.limiter.full:
            raise self._refused()
        limit, seconds = self._settings.max_body_bytes, self._settings.body_timeout_seconds
        try:
            return await body.read(request, request[SHARE], limit=limit, seconds=seconds)
        except OutOfMemory:
            raise self._too_much() from None

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Hold a body that is already there, inside the block.

        Raises:
            Failure: 429.
        """
        share = self.memory.share()
        try:
            share.add(size)
        except OutOfMemory:
            raise self._too_much() from None
        try:
            yield
        finally:
            share.close()

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Run inside the block, one of at most MAX_CONCURRENCY; waits for it in order.

        Raises:
            Failure: 429, nobody more may wait.
        """
        came = self._clock()
        try:
            async with self.limiter.place():
                self.metrics.queue_seconds.observe(self._clock() - came)
                yield
        except Full:
            raise self._refused() from None

    def _too_much(self) -> Failure:
        self.metrics.refused.labels(reason="memory").inc()
        return Failure(429, "too many large requests at once", headers=_RETRY)

    def _refused(self) -> Failure:
        self.metrics.refused.labels(reason="queue").inc()
        running = self._settings.max_concurrency
        waiting = f" and {self._settings.waiting} wait" if self._settings.waiting else ""
        return Failure(429, f"too many requests: {running} run{waiting}", headers=_RETRY)
