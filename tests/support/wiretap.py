"""A TCP relay that keeps what clients send, as it is on the wire: to see that nothing goes in plain text."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

HOST = "127.0.0.1"
_HEAD = 5
_TYPES = range(20, 25)  # change_cipher_spec, alert, handshake, application_data, heartbeat
_HANDSHAKE = 22


class Wiretap:
    """Leads connections to a port of loopback; `connections` has the bytes that each client sent."""

    def __init__(self, to):
        self.port = 0
        self.connections = []
        self._to = to
        self._tasks = set()

    @property
    def opened(self):
        """How many connections brought bytes."""
        return sum(map(bool, self.connections))

    def check_tls(self):
        """Every byte of every connection belongs to a TLS record, the first to a handshake; there was a connection."""
        assert self.opened
        for sent in filter(None, self.connections):
            assert sent[0] == _HANDSHAKE, bytes(sent[:80])
            assert_records(sent)

    async def serve(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        sent = bytearray()
        self.connections.append(sent)
        other = None
        try:
            other_reader, other = await asyncio.open_connection(HOST, self._to)
            await asyncio.gather(_copy(reader, other, sent), _copy(other_reader, writer, bytearray()))
        except (OSError, asyncio.CancelledError):  # `close` cancels; a cancelled callback of asyncio's would be logged
            pass
        finally:
            for one in filter(None, (writer, other)):
                one.transport.abort()

    async def close(self):
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def assert_records(sent):
    """Walk over the records; the last may not have come whole."""
    at = 0
    while at < len(sent):
        head = sent[at : at + _HEAD]
        assert head[0] in _TYPES, bytes(sent[at : at + 80])
        assert head[1:2] in (b"", b"\3"), bytes(sent[at : at + 80])
        at += _HEAD + int.from_bytes(head[3:5])


async def _copy(reader, writer, kept):
    """Until one side ends; what it has said last is passed on."""
    try:
        while data := await reader.read(1 << 16):
            kept += data
            writer.write(data)
            await writer.drain()
    except OSError:
        writer.transport.abort()
    else:
        writer.close()


@asynccontextmanager
async def wiretap(to):
    """A relay to a port inside the block."""
    tap = Wiretap(to)
    server = await asyncio.start_server(tap.serve, HOST, 0, backlog=1024)
    tap.port = server.sockets[0].getsockname()[1]
    try:
        yield tap
    finally:
        server.close()
        await tap.close()
