"""Servers that answer by a test's own handler, byte by byte: slow ones, streams, broken connections."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@asynccontextmanager
async def stub_server(handle, *, tls=None):
    """Serve HTTP/1.1 by `await handle(head, writer)` for each request, which was read whole; the block gets the port.

    The connection ends when the handler returns False. With an `ssl.SSLContext` it speaks TLS.
    """
    tasks = set()

    async def connection(reader, writer):
        tasks.add(asyncio.current_task())
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await _body(head, reader)
                if await handle(head.decode("latin-1"), writer) is False:
                    break
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connection, "127.0.0.1", 0, backlog=4096, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _body(head, reader):
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            await reader.readexactly(int(line.partition(b":")[2]))


class Streamer:
    """A model whose answer is a stream: `send` writes the next event of each, `finish` ends them."""

    def __init__(self):
        self._writers = []

    @property
    def open(self):
        return len(self._writers)

    async def handle(self, _, writer):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        self._writers.append(writer)

    def send(self, event):
        data = f"data: {event}\n\n".encode()
        for writer in self._writers:
            writer.write(b"%x\r\n%b\r\n" % (len(data), data))

    def finish(self):
        for writer in self._writers:
            writer.write(b"0\r\n\r\n")
        self._writers.clear()


class EventStream:
    """The client's side of one streamed answer."""

    def __init__(self, reader, writer):
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, port, path, host="iris-models.example.com"):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        return cls(reader, writer)

    async def event(self):
        """The next event's data; an empty text at the end of the stream."""
        async with asyncio.timeout(10):
            size = int(await self._reader.readline(), 16)
            chunk = await self._reader.readexactly(size + 2)
        return chunk[:-2].decode().removeprefix("data: ").strip()

    def close(self):
        self._writer.close()
