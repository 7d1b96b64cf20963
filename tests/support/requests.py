"""Raw requests: what is on the wire, also where a well-behaved client would not send it."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass, field

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_STATIC_STATUS = {8: 200, 9: 204, 10: 206, 11: 304, 12: 400, 13: 404, 14: 500}


@dataclass
class Reply:
    """Status, headers by lower-case name (all values, in order) and body; HTTP/2 replies have no headers here."""

    status: int
    headers: dict = field(default_factory=dict)
    body: bytes = b""

    def header(self, name):
        """The first value, or None."""
        return self.headers.get(name, [None])[0]


async def http1(
    port, path="/", *, method="GET", host="iris-models.example.com", headers=(), body=b"", seconds=10, to="127.0.0.1"
):
    """One HTTP/1.1 request on a connection of its own; `headers` are pairs and may repeat."""
    lines = [f"{method} {path} HTTP/1.1", f"host: {host}", *(f"{name}: {value}" for name, value in headers)]
    lines += [f"content-length: {len(body)}", "connection: close", "", ""]
    return await http1_bytes(port, "\r\n".join(lines).encode() + body, seconds, to)


async def http1_bytes(port, request, seconds=10, to="127.0.0.1"):
    """Send these bytes to an address, and read one reply until its end or that of the connection."""
    async with asyncio.timeout(seconds):
        reader, writer = await asyncio.open_connection(to, port)
        try:
            writer.write(request)
            await writer.drain()
            return await _reply(reader)
        finally:
            writer.close()


async def _reply(reader):
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    reply = Reply(int(first.split()[1]))
    for name, _, value in (line.partition(":") for line in lines if line):
        reply.headers.setdefault(name.lower(), []).append(value.strip())
    if length := reply.header("content-length"):
        reply.body = await reader.readexactly(int(length))
    elif reply.header("transfer-encoding") == "chunked":
        while size := int(await reader.readline(), 16):
            reply.body += (await reader.readexactly(size + 2))[:-2]
    elif reply.status >= 200:
        reply.body = await reader.read()
    return reply


async def http2(
    port,
    path="/",
    *,
    method="GET",
    authority="iris-models.example.com",
    headers=(),
    body=b"",
    seconds=10,
    to="127.0.0.1",
):
    """One request by HTTP/2 with prior knowledge; the reply has status and body."""
    pairs = [(":method", method), (":scheme", "http"), (":path", path), (":authority", authority), *headers]
    async with asyncio.timeout(seconds):
        reader, writer = await asyncio.open_connection(to, port)
        try:
            writer.write(_PREFACE + _frame(_SETTINGS))
            writer.write(
                _frame(_HEADERS, _END_HEADERS | (0 if body else _END_STREAM), 1, b"".join(map(_literal, pairs)))
            )
            if body:
                writer.write(_frame(_DATA, _END_STREAM, 1, body))
            return await _reply2(reader, writer)
        finally:
            writer.close()


async def _reply2(reader, writer):
    reply, ended = Reply(0), False
    while not ended:
        length, kind, flags, _ = struct.unpack("!IBBI", b"\0" + await reader.readexactly(9))
        payload = await reader.readexactly(length)
        if kind == _SETTINGS and not flags & _ACK:
            writer.write(_frame(_SETTINGS, _ACK))
        elif kind == _PING and not flags & _ACK:
            writer.write(_frame(_PING, _ACK, 0, payload))
        elif kind in {_RESET, _GOAWAY}:
            raise ConnectionResetError(f"HTTP/2 frame {kind}: {payload!r}")
        elif kind == _HEADERS and not reply.status:
            reply.status = _status(payload)
        elif kind == _DATA:
            reply.body += payload
        ended = kind in {_HEADERS, _DATA} and bool(flags & _END_STREAM)
    return reply


def _frame(kind, flags=0, stream=0, payload=b""):
    return struct.pack("!IBBI", len(payload), kind, flags, stream)[1:] + payload


def _literal(pair):
    """A header field never indexed, name and value plain (RFC 7541, 6.2.3)."""
    return b"\x10" + b"".join(_length(len(part)) + part for part in (pair[0].encode(), pair[1].encode()))


def _length(value):
    """An integer with a prefix of seven bits (RFC 7541, 5.1)."""
    if value < 127:
        return bytes([value])
    value, result = value - 127, b"\x7f"
    while value >= 128:
        result += bytes([value % 128 + 128])
        value //= 128
    return result + bytes([value])


def _status(block):
    """`:status`, the first field of a block: indexed, or a literal whose name is indexed and value three digits."""
    while block[0] & 0xE0 == 0x20:  # a change of the table's size comes first
        block = block[1:]
    if block[0] & 0x80:
        return _STATIC_STATUS[block[0] & 0x7F]
    length, value = block[1] & 0x7F, block[2 : 2 + (block[1] & 0x7F)]
    return _huffman_digits(value) if block[1] & 0x80 else int(value[:length])


def _huffman_digits(value):
    """Three digits in HPACK's Huffman code: 0-2 have five bits, the others six (RFC 7541, appendix B)."""
    bits, text = "".join(f"{byte:08b}" for byte in value), ""
    while len(text) < 3:
        size = 5 if bits[:5] in {"00000", "00001", "00010"} else 6
        code, bits = int(bits[:size], 2), bits[size:]
        text += str(code if size == 5 else code - 0b011001 + 3)
    return int(text)
