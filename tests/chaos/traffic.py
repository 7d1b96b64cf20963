"""Requests at a fixed rate whatever becomes of them, and long streams beside them; every answer is kept."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass

from tests.chaos.farm import EVENT_SECONDS
from xdserve.demo.driver import LostError, connect, post

HOST = "127.0.0.1"
DEADLINE = 30.0
"""Seconds for one request."""
NEW_CONNECTIONS = 0.2
"""The share of requests on a connection of their own."""

_BODY = b'{"instances": [1]}'
_PREDICT = "/v1/models/iris:predict"
_SERVICE, _COMPONENT = "iris-models.example.com", "iris-predictor-models.example.com"
REQUESTS = {
    "plain": post(_SERVICE, _PREDICT, _BODY),
    "tester": post(_SERVICE, _PREDICT, _BODY, {"x-tester": "true"}),
    "beta": post(_SERVICE, "/v1/models/beta/iris:predict", _BODY),
    "component": post(_COMPONENT, _PREDICT, _BODY),
}


@dataclass(slots=True)
class Asked:
    """A request and what became of it: `edition` is the policy that the answer tells, `error` why there is none."""

    kind: str
    sent: float
    answered: float = 0.0
    status: int = 0
    variant: str = ""
    edition: str = ""
    error: str = ""

    @property
    def failed(self):
        return self.status != 200


class Traffic:
    """An open loop over one port: `rate` requests a second."""

    def __init__(self, port, rng, rate):
        self.asked = []
        self.connections = 0
        self._port = port
        self._rng = rng
        self._rate = rate
        self._idle = []

    async def run(self, stop):
        """Ask until `stop` is set, and wait for what is under way."""
        start, sent = time.monotonic(), 0
        async with asyncio.TaskGroup() as tasks:
            while not stop.is_set():
                due = int((time.monotonic() - start) * self._rate)
                for _ in range(due - sent):
                    tasks.create_task(self._ask(self._rng.choice(list(REQUESTS))))
                sent = max(due, sent)
                await asyncio.sleep(1 / self._rate)
        for connection in self._idle:
            connection.close()

    async def _ask(self, kind):
        alone = self._rng.random() < NEW_CONNECTIONS
        asked = Asked(kind, time.monotonic())
        self.asked.append(asked)
        try:
            async with asyncio.timeout(DEADLINE):
                connection = await self._connection(alone=alone)
                self._take(asked, await connection.ask(REQUESTS[kind]))
        except (LostError, OSError) as error:  # a deadline that is over is an OSError too
            asked.error = f"{type(error).__name__} {error}"
            return
        finally:
            asked.answered = time.monotonic()
        if alone:
            connection.close()
        elif connection.open:  # one that is closed though no answer said so, fails the next request
            self._idle.append(connection)

    async def _connection(self, *, alone):
        if self._idle and not alone:
            return self._idle.pop()
        self.connections += 1
        return await connect(HOST, self._port)

    def _take(self, asked, answer):
        asked.status, asked.variant = answer.status, answer.variant
        name = answer.cookie.partition("=")[0]
        asked.edition = name if name.startswith("edition-") else ""

    def statuses(self):
        return Counter(asked.status for asked in self.asked)


class Streams:
    """Streams of server-sent events, one after the other in each lane, as long as the traffic lasts."""

    def __init__(self, port, lanes):
        self.whole = 0
        self.broken = []
        self.longest_gap = 0.0
        self._port = port
        self._lanes = lanes

    async def run(self):
        """Every lane to its end; `lanes` are the seconds of one stream after the other."""
        async with asyncio.TaskGroup() as tasks:
            for lane in self._lanes:
                tasks.create_task(self._lane(lane))

    async def _lane(self, lane):
        for seconds in lane:
            events = int(seconds / EVENT_SECONDS)
            try:
                async with asyncio.timeout(seconds * 3 + DEADLINE):
                    await self._stream(events)
                self.whole += 1
            except (OSError, EOFError, ValueError) as error:
                self.broken.append(f"{seconds} s: {type(error).__name__} {error}")

    async def _stream(self, events):
        reader, writer = await asyncio.open_connection(HOST, self._port)
        try:
            request = f"GET /v1/stream?events={events} HTTP/1.1\r\nhost: {_SERVICE}\r\n\r\n"
            writer.write(request.encode())
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200 "):
                raise ValueError(head.decode("latin-1"))
            await self._events(reader, events)
        finally:
            writer.close()

    async def _events(self, reader, events):
        """All of them, in order, and the end of the last chunk."""
        body, last = b"", time.monotonic()
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
            now = time.monotonic()
            self.longest_gap, last = max(self.longest_gap, now - last), now
        expected = "".join(f"data: {number}\n\n" for number in [*range(events), "[DONE]"])
        if body.decode() != expected:
            raise ValueError(f"{len(body)} bytes of {len(expected)}")
