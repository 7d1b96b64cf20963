"""Requests at a steady rate, whatever becomes of those before: `async with Steady(port, requests).running()`.

In turn one goes over a connection that is kept, one over a connection of its own, and so on.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from contextlib import asynccontextmanager
from itertools import cycle

from xdserve.demo.driver import LostError, connect

HOST = "127.0.0.1"


class Steady:
    """The requests in turn, so many a second; `answers` counts statuses, and what was raised instead of one.

    `kept` connections are open from the start. The one that waited longest is next, so that none is forgotten. `closed`
    counts those that the other side has ended; a request that finds none makes one.
    """

    def __init__(self, port, requests, *, per_second=100, kept=8, seconds=10):
        self.answers = Counter()
        self.closed = 0
        self.slowest = 0.0
        self.took = 0.0
        self._port, self._requests = port, cycle(requests)
        self._pause, self._seconds = 1 / per_second, seconds
        self._kept, self._idle = kept, deque()

    @asynccontextmanager
    async def running(self):
        """The requests go on inside the block, which ends when all of them are answered."""
        end = asyncio.Event()
        self._idle.extend([await connect(HOST, self._port) for _ in range(self._kept)])
        sending = asyncio.create_task(self._send(end))
        try:
            yield self
        finally:
            end.set()
            await sending
            for connection in self._idle:
                connection.close()

    async def _send(self, end):
        loop = asyncio.get_running_loop()
        begun = due = loop.time()
        ways = self._over_kept, self._over_new
        async with asyncio.TaskGroup() as tasks:
            while not end.is_set():
                tasks.create_task(self._count(ways[0]))
                due, ways = due + self._pause, ways[::-1]
                await asyncio.sleep(due - loop.time())
        self.took = loop.time() - begun

    async def _count(self, way):
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            async with asyncio.timeout(self._seconds):
                answer = await way()
            self.answers[answer.status] += 1
        except (LostError, OSError, TimeoutError) as error:
            self.answers[repr(error)] += 1
        self.slowest = max(self.slowest, loop.time() - begun)

    async def _over_kept(self):
        connection = self._next() or await connect(HOST, self._port)
        answer = await connection.ask(next(self._requests))
        self._idle.append(connection)
        return answer

    def _next(self):
        """The next kept connection that is open."""
        while self._idle:
            if (connection := self._idle.popleft()).open:
                return connection
            self.closed += 1
        return None

    async def _over_new(self):
        connection = await connect(HOST, self._port)
        try:
            return await connection.ask(next(self._requests))
        finally:
            connection.close()
