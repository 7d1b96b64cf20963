"""A TCP relay that can be cut: `async with Relay(host) as relay`, `relay.to = [(host, port)]`, `relay.cut()`.

Towards an apiserver it is the network that fails; towards several replicas it is their Service: each new connection
goes to one of those that listen.
"""

from __future__ import annotations

import asyncio
import random

from tests.support.wait import wait_until


class Relay:
    """Leads connections to one of `to`; `opened` counts those that found somebody, `refused` the others."""

    def __init__(self, host, port=0):
        self.host, self.port = host, port
        self.to = []
        self.opened = self.refused = 0
        self._open = True
        self._writers = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error):
        self._server.close()
        self.cut()
        await wait_until(lambda: not self._writers)

    @property
    def address(self):
        return f"{self.host}:{self.port}"

    def cut(self):
        """Break all connections, and lead no new one."""
        self._open = False
        for writer in self._writers:
            writer.transport.abort()

    def mend(self):
        """Lead connections again."""
        self._open = True

    async def _serve(self, reader, writer):
        self._writers.add(writer)
        other = None
        try:
            if self._open and (found := await self._found()):
                other_reader, other = found
                self._writers.add(other)
                self.opened += 1
                if self._open:
                    await asyncio.gather(_copy(reader, other), _copy(other_reader, writer))
            else:
                self.refused += 1
        finally:
            for one in filter(None, (writer, other)):
                one.transport.abort()
                self._writers.discard(one)

    async def _found(self):
        """The first that listens, asked at random."""
        for host, port in random.sample(self.to, len(self.to)):
            try:
                return await asyncio.open_connection(host, port)
            except OSError:
                continue
        return None


async def _copy(reader, writer):
    """Until one side ends; what it has said last is passed on."""
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except OSError:
        writer.transport.abort()
    else:
        writer.close()
