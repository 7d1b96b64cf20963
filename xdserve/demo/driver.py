"""Requests over HTTP/1.1 keep-alive connections, counted by variant and status: light enough to share two cores.

Only what the demo needs of HTTP/1.1, by hand: a general client costs more than Envoy and the model servers together.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import NamedTuple, cast


class Answer(NamedTuple):
    """One answer: HTTP status, the variant that gave it (`""` if none), Set-Cookie, when it came (perf_counter)."""

    status: int
    variant: str
    cookie: str
    at: float


class LostError(Exception):
    """A connection ended, or said something that is not HTTP, before the answer was complete."""


@dataclass(slots=True)
class Tally:
    """Answers to the requests sent while this was the current tally."""

    variants: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    lost: int = 0
    since: float = field(default_factory=time.perf_counter)

    @property
    def total(self) -> int:
        """Requests that were answered or lost."""
        return self.statuses.total() + self.lost

    @property
    def failed(self) -> int:
        """Requests lost, or answered by anything but 2xx."""
        return self.lost + sum(count for status, count in self.statuses.items() if not 200 <= status < 300)

    def add(self, answer: Answer) -> None:
        """Count one answer; a failure has no variant that counts for a share."""
        self.statuses[answer.status] += 1
        if 200 <= answer.status < 300:
            self.variants[answer.variant] += 1

    def shares(self) -> dict[str, float]:
        """The share of each variant."""
        total = self.variants.total()
        return {name: count / total for name, count in sorted(self.variants.items())}


def post(host: str, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """The bytes of one POST request with a JSON body."""
    lines = [f"POST {path} HTTP/1.1", f"host: {host}", "content-type: application/json"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    lines += [f"content-length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


class Connection(asyncio.Protocol):
    """One keep-alive connection with one request in flight."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._answer: asyncio.Future[Answer] | None = None

    @property
    def open(self) -> bool:
        """Whether a request may be sent."""
        return self._transport is not None and not self._transport.is_closing()

    async def ask(self, request: bytes) -> Answer:
        """Send `request` and wait for its answer; LostError if the connection ends first."""
        if self._transport is None or self._transport.is_closing():
            raise LostError("the connection is closed")
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self._transport = cast(asyncio.Transport, transport)  # asyncio's promise for TCP

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        self._fail(f"the connection ended: {exc or 'closed by the gateway'}")

    def data_received(self, data: bytes) -> None:
        """Called by asyncio: an answer is complete when its head and content-length bytes are there."""
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._received[: end + 2])
        length = _header(head, b"content-length")
        if not head.startswith(b"HTTP/1.1 ") or not length.isdigit():
            self._fail(f"not an answer this client can read: {head[:60]!r}")
        elif len(self._received) >= end + 4 + int(length):
            self._finish(head)

    def _finish(self, head: bytes) -> None:
        self._received.clear()
        closing = _header(head, b"connection").lower() == b"close"
        if closing and self._transport is not None:
            self._transport.close()
        if self._answer is not None and not self._answer.done():
            variant, cookie = _header(head, b"x-variant").decode(), _header(head, b"set-cookie").decode()
            self._answer.set_result(Answer(int(head[9:12]), variant, cookie, time.perf_counter()))

    def _fail(self, why: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(LostError(why))
        self.close()


async def connect(host: str, port: int) -> Connection:
    """Open a connection; OSError if nobody listens."""
    _, connection = await asyncio.get_running_loop().create_connection(Connection, host, port)
    return connection


class Traffic:
    """The same request over several connections, again and again, until stopped.

    `pause` seconds between the requests of a connection leave the machine to what is measured.
    """

    def __init__(self, host: str, port: int, request: bytes, *, connections: int = 8, pause: float = 0.0) -> None:
        self._address = host, port
        self._request = request
        self._connections = connections
        self._pause = pause
        self._tally = Tally()
        self._counted = asyncio.Event()
        self._awaited: tuple[str, asyncio.Future[float]] | None = None
        self.failed = 0

    def count(self) -> Tally:
        """A new tally of what is sent from now on; requests in flight still count in the one before."""
        self._tally = Tally()
        return self._tally

    async def until(self, tally: Tally, *, requests: int, seconds: float = 0.0, deadline: float = 60.0) -> None:
        """Wait until `tally` has `requests` and is `seconds` old; TimeoutError after `deadline` seconds."""
        async with asyncio.timeout(deadline):
            await asyncio.sleep(tally.since + seconds - time.perf_counter())
            while tally.total < requests:
                self._counted.clear()
                await self._counted.wait()

    def expect(self, variant: str) -> asyncio.Future[float]:
        """When the next answer of `variant` came (perf_counter), once it did."""
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._awaited = variant, future
        return future

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Traffic]:
        """Traffic goes on inside the block."""
        loops = [asyncio.create_task(self._ask_on()) for _ in range(self._connections)]
        try:
            yield self
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)

    async def _ask_on(self) -> None:
        connection = Connection()
        try:
            while True:
                tally = self._tally
                try:
                    if not connection.open:
                        connection = await connect(*self._address)
                    self._take(await connection.ask(self._request), tally)
                except (LostError, OSError):
                    tally.lost += 1
                    self.failed += 1
                    self._counted.set()
                    await asyncio.sleep(0.05)  # a gateway that is down is asked at a bearable rate
                if self._pause:
                    await asyncio.sleep(self._pause)
        finally:
            connection.close()

    def _take(self, answer: Answer, tally: Tally) -> None:
        tally.add(answer)
        self._counted.set()
        self.failed += not 200 <= answer.status < 300
        if self._awaited is not None and self._awaited[0] == answer.variant:
            _, future = self._awaited
            self._awaited = None
            if not future.done():
                future.set_result(answer.at)


def _header(head: bytes, name: bytes) -> bytes:
    """The first value of a header; Envoy and aiohttp differ in the case of names, never in the rest."""
    start = head.lower().find(b"\r\n" + name + b":")
    if start < 0:
        return b""
    start += len(name) + 3
    return head[start : head.index(b"\r\n", start)].strip()
