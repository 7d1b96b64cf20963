"""Model servers that come and go, each with a name of its own, in the test's own event loop."""

from __future__ import annotations

import asyncio

from aiohttp import web

from tests.support.model import Model

HOST = "127.0.0.1"
EVENT_SECONDS = 0.1
"""Between the events of a stream."""

_KEEPALIVE_SECONDS = 7200.0


class Process(Model):
    """A model server that also streams: `GET /v1/stream?events=N` sends N events, then `[DONE]`."""

    def __init__(self, name):
        super().__init__(name)
        self.name = name
        self.port = 0
        self.unused_since = None
        self._runner = None

    def application(self):
        app = web.Application()
        app.router.add_get("/v1/stream", self.stream)
        app.router.add_post(r"/v1/models/{model:[\w/.-]+}:predict", self.predict)
        return app

    async def stream(self, request):
        response = web.StreamResponse(headers={"x-variant": self.name, "content-type": "text/event-stream"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        for number in range(int(request.query["events"])):
            await response.write(f"data: {number}\n\n".encode())
            await asyncio.sleep(EVENT_SECONDS)
        await response.write(b"data: [DONE]\n\n")
        return response

    async def start(self):
        self._runner = web.AppRunner(
            self.application(), access_log=None, keepalive_timeout=_KEEPALIVE_SECONDS, shutdown_timeout=0.1
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, 0, backlog=1024).start()
        self.port = self._runner.addresses[0][1]

    async def close(self):
        """Nobody can connect any more; streams that run go on."""
        for site in list(self._runner.sites):
            await site.stop()

    async def end(self):
        await self._runner.cleanup()


class Farm:
    """All processes, also those whose time is over; use as a context."""

    def __init__(self):
        self.running = {}
        self._all = []

    async def __aenter__(self):
        return self

    async def __aexit__(self, *error):
        for process in self._all:
            await process.end()

    async def start(self):
        """A new process on a port of its own."""
        process = Process(f"m{len(self._all)}")
        await process.start()
        self._all.append(process)
        self.running[process.name] = process
        return process

    async def close_unused(self, used, now, grace):
        """Close the ports of processes that no endpoint names for `grace` seconds."""
        for process in list(self.running.values()):
            if process.name in used:
                process.unused_since = None
            elif process.unused_since is None:
                process.unused_since = now
            elif now - process.unused_since > grace:
                del self.running[process.name]
                await process.close()

    def __len__(self):
        return len(self._all)
