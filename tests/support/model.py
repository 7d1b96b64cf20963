"""A light model server for tests: KServe's v1 and v2 protocols and an echo; each answer names its variant."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

# Longer than any gateway keeps an idle connection: the side that sends must be the side that closes.
_KEEPALIVE_SECONDS = 7200.0
HOST = "127.0.0.1"

Body = dict[str, Any]


class Model:
    """The handlers of one variant; every answer names it in the field `variant` and the header `x-variant`."""

    def __init__(self, variant: str) -> None:
        self.variant = variant
        self.requests = 0

    def application(self) -> web.Application:
        """The aiohttp application with all routes."""
        app = web.Application(client_max_size=64 * 2**20)
        model = r"{model:[\w.-]+}"
        app.router.add_get(f"/v1/models/{model}", self.metadata)
        app.router.add_post(f"/v1/models/{model}:predict", self.predict)
        app.router.add_post(f"/v1/models/{model}:explain", self.explain)
        app.router.add_get("/v2/health/ready", self.ready)
        app.router.add_post(f"/v2/models/{model}/infer", self.infer)
        app.router.add_route("*", "/{path:.*}", self.echo)
        return app

    async def metadata(self, request: web.Request) -> web.Response:
        """`GET /v1/models/<model>`."""
        return self._answer({"name": request.match_info["model"], "ready": True})

    async def predict(self, request: web.Request) -> web.Response:
        """`POST /v1/models/<model>:predict`: one prediction for each of `instances`."""
        return await self._per_instance(request, "predictions")

    async def explain(self, request: web.Request) -> web.Response:
        """`POST /v1/models/<model>:explain`."""
        return await self._per_instance(request, "explanations")

    async def ready(self, _: web.Request) -> web.Response:
        """`GET /v2/health/ready`."""
        return self._answer({"ready": True})

    async def infer(self, request: web.Request) -> web.Response:
        """`POST /v2/models/<model>/infer`: the first input's number of rows as zeros."""
        body = await _json(request)
        try:
            rows = int(body["inputs"][0]["shape"][0])
        except (KeyError, IndexError, TypeError, ValueError):
            return self._answer({"error": "inputs[0].shape[0] is missing"}, status=400)
        output = {"name": "predict", "datatype": "INT64", "shape": [rows], "data": [0] * min(rows, 1000)}
        return self._answer({"model_name": request.match_info["model"], "outputs": [output]})

    async def echo(self, request: web.Request) -> web.Response:
        """Anything else: what arrived here, for a look at what a gateway did to a request."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        body = (await request.read()).decode(errors="replace")
        return self._answer({"method": request.method, "path": request.path_qs, "headers": headers, "body": body})

    async def _per_instance(self, request: web.Request, field: str) -> web.Response:
        instances = (await _json(request)).get("instances")
        if not isinstance(instances, list):
            return self._answer({"error": "instances is not a list"}, status=400)
        return self._answer({field: [0] * len(instances)})

    def _answer(self, body: Body, status: int = 200) -> web.Response:
        self.requests += 1
        headers = {"x-variant": self.variant, "content-type": "application/json"}
        return web.Response(text=json.dumps(body | {"variant": self.variant}), status=status, headers=headers)


@asynccontextmanager
async def serve(
    model: Model, host: str = HOST, port: int = 0, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Serve `model` inside the block, which gets the port."""
    runner = web.AppRunner(
        model.application(), access_log=None, keepalive_timeout=_KEEPALIVE_SECONDS, shutdown_timeout=0.1
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, backlog=1024, ssl_context=tls).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def _json(request: web.Request) -> Body:
    try:
        body = json.loads(await request.read())
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
