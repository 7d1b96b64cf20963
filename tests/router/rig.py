"""A router in a process of its own, as a pod has it, and clients of it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from contextlib import contextmanager

import aiohttp
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from tests.support.processes import Children
from tests.support.wait import wait_until
from xdserve.router.settings import RouterSettings, variable_of

HOST = "127.0.0.1"
PREFIX = "xdserve_router_"


def environment(**variables):
    """This environment without any variable of the router, and with these."""
    ours = {variable_of(name) for name in RouterSettings.model_fields}
    return {name: value for name, value in os.environ.items() if name not in ours} | variables


class Process:
    """A router that runs."""

    def __init__(self, child):
        self.child = child
        self.port = self.grpc_port = 0

    @property
    def url(self):
        return f"http://{HOST}:{self.port}"

    def lines(self, event=None):
        """What it logged, by `event`."""
        # The last line may be there in part.
        whole = self.child.log.read_text().rpartition("\n")[0]
        lines = [json.loads(line) for line in whole.splitlines()]
        return [line for line in lines if event in {None, line["event"]}]

    def listening(self, event):
        line = next(iter(self.lines(event)), None)
        return int(line["address"].rpartition(":")[2]) if line else 0

    def started(self):
        self.child.check()
        self.port, self.grpc_port = self.listening("listening"), self.listening("listening for gRPC")
        return self.port


@contextmanager
def routers(folder):
    """Gives a function that starts a router with these variables; all have ended when the block is left."""
    with Children(folder) as children:
        count = iter(range(100))

        def start(**variables):
            env = environment(**{"PORT": "0", "ADDRESS": HOST, "HOSTNAME": "pod-1", "LOG_FORMAT": "json"} | variables)
            command = [sys.executable, "-m", "xdserve", "router"]
            process = Process(children.start(f"router-{next(count)}", command, env))
            deadline = time.monotonic() + 30
            while not process.started():
                assert time.monotonic() < deadline, process.child.failure("does not listen")
                time.sleep(0.02)
            return process

        yield start


class Client:
    """A session with one router."""

    def __init__(self, process):
        self.session = aiohttp.ClientSession(process.url, connector=aiohttp.TCPConnector(limit=0))

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.session.close()

    async def ask(self, method, path, **options):
        """Status, JSON and headers of an answer."""
        async with self.session.request(method, path, **options) as response:
            text = await response.text()
            return response.status, json.loads(text) if text else None, response.headers

    async def infer(self, prompt, **options):
        return await self.ask("POST", "/infer", json={"prompt": prompt}, **options)

    async def metric(self, name, **labels):
        """The value of a metric."""
        async with self.session.get("/metrics") as response:
            families = text_string_to_metric_families(await response.text())
        return next(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == PREFIX + name and sample.labels == labels
        )

    async def until(self, name, value, **labels):
        """Wait until a metric has this value."""

        async def reached():
            return await self.metric(name, **labels) == value

        await wait_until(reached, what=f"{name} == {value}")


class Model:
    """A model server (v1) inside the test: keeps what reaches it, and answers while `go` is set."""

    def __init__(self):
        self.prompts, self.headers, self.paths = [], [], []
        self.running = self.peak = 0
        self.go = asyncio.Event()
        self.go.set()
        self.ready, self.answer = True, None
        self.variables = {}

    async def _metadata(self, request):
        return web.json_response({"name": request.match_info["model"], "ready": self.ready})

    async def _predict(self, request):
        self.headers.append(dict(request.headers))
        self.paths.append(request.raw_path)
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            prompt = (await request.json())["instances"][0]
            self.prompts.append(prompt)
            await self.go.wait()
            return self.answer or web.json_response({"predictions": [prompt]})
        finally:
            self.running -= 1

    async def __aenter__(self):
        app = web.Application()
        app.router.add_get("/v1/models/{model}", self._metadata)
        app.router.add_post("/v1/models/{model}:predict", self._predict)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, 0).start()
        self.variables = {"UPSTREAM_URL": f"http://{HOST}:{self._runner.addresses[0][1]}"}
        return self

    async def __aexit__(self, *_):
        await self._runner.cleanup()


async def cancelled(*tasks):
    """Cancel tasks and let them end."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
