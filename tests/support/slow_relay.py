"""A TCP relay to a server far away: `async with SlowRelay(port) as relay`, and connect to `relay.port`.

It is a delay line. Each byte is passed on a fixed time after it came, in order, and as many bytes as come are under way
at once: the relay has no window of its own and limits no bandwidth. Opening a connection takes no time.
"""

from __future__ import annotations

import asyncio
from collections import deque

from tests.support.wait import wait_until

HOST = "127.0.0.1"
ONE_WAY = 0.025
"""Seconds that a byte takes in one direction."""


class SlowRelay:
    """Leads connections to a port of loopback; `turns` counts how often the server's words follow the client's.

    A client that sends what it may and then waits for leave to send on makes one turn of each round trip.
    """

    def __init__(self, to, *, one_way=ONE_WAY):
        self.port = 0
        self.turns = 0
        self._to = to
        self._one_way = one_way
        self._ends = set()
        self._last = None

    async def __aenter__(self):
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _End(self, "client"), HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error):
        self._server.close()
        for end in list(self._ends):
            end.abort()
        await wait_until(lambda: not self._ends, what="the relay's connections to end")

    async def lead(self, client):
        """Connect a client's end to the server."""
        loop = asyncio.get_running_loop()
        try:
            _, server = await loop.create_connection(lambda: _End(self, "server"), HOST, self._to)
        except OSError:
            client.abort()
            return
        client.lines_to(_Line(server, self._one_way))
        server.lines_to(_Line(client, self._one_way))

    def opened(self, end):
        self._ends.add(end)

    def closed(self, end):
        self._ends.discard(end)

    def heard(self, side):
        """Bytes came from a side."""
        self.turns += side == "server" and self._last == "client"
        self._last = side


class _Line:
    """The bytes under way to one end: bytes by the time at which they arrive; None is the end of the stream."""

    def __init__(self, end, seconds):
        self._end, self._seconds = end, seconds
        self._loop = asyncio.get_running_loop()
        self._waiting = deque()

    def put(self, data):
        self._waiting.append((self._loop.time() + self._seconds, data))
        if len(self._waiting) == 1:
            self._wait()

    def _wait(self):
        self._loop.call_at(self._waiting[0][0], self._arrive)

    def _arrive(self):
        # A timer may fire the clock's resolution early; what it was set for is due.
        due = max(self._loop.time(), self._waiting[0][0])
        while self._waiting and self._waiting[0][0] <= due:
            self._end.say(self._waiting.popleft()[1])
        if self._waiting:
            self._wait()


class _End(asyncio.Protocol):
    """One connection of the relay; `side` is who is at its other end."""

    def __init__(self, relay, side):
        self._relay, self._side = relay, side
        self._line = None
        self._early = []

    def connection_made(self, transport):
        self._transport = transport
        self._relay.opened(self)
        if self._side == "client":
            self._leading = asyncio.create_task(self._relay.lead(self))

    def lines_to(self, line):
        """Where this end's words go; those that came before it was known go first."""
        self._line = line
        for data in self._early:
            line.put(data)

    def data_received(self, data):
        self._relay.heard(self._side)
        self._pass_on(data)

    def connection_lost(self, error):
        self._relay.closed(self)
        self._pass_on(None)

    def say(self, data):
        """Words from the other side have arrived."""
        if self._transport.is_closing():
            return
        if data is None:
            self._transport.close()
        else:
            self._transport.write(data)

    def abort(self):
        self._transport.abort()

    def _pass_on(self, data):
        if self._line is None:
            self._early.append(data)
        else:
            self._line.put(data)
