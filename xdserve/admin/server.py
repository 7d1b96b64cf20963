"""The admin endpoints over HTTP: JSON, but for the metrics; errors are JSON too."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import structlog
from aiohttp import web

from bootstrap.address import Address
from xdserve.admin.views import State, encode
from xdserve.metrics import CONTENT_TYPE, Metrics
from xdserve.series import GatewaySeries

logger = structlog.get_logger("xdserve.admin")

_GATEWAY = re.compile(r"[^/\s]+/[^/\s]+")
_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class AdminError(Exception):
    """The admin address cannot be listened on; the message is one line for the user."""


class Endpoint(NamedTuple):
    """A path, what it answers (one line, for `/` and the documentation) and what makes the answer."""

    path: str
    text: str
    handler: Handler
    method: str = "GET"


class AdminServer:
    """Serves the state of one program.

    `start` before use, `stop` after; the state is read at each request, in the program's own event loop.

    Args:
        address: where to listen; port 0 takes a free one.
        state: what is shown.
        metrics: the program's.
        series: the metrics of each gateway, if these are wanted.
    """

    def __init__(self, address: Address, state: State, metrics: Metrics, series: GatewaySeries | None = None) -> None:
        self._address, self._state, self._metrics, self._series = address, state, metrics, series
        self._runner: web.AppRunner | None = None

    async def start(self) -> Address:
        """Listen; gives the address with its real port (asked for as 0).

        Raises:
            AdminError: the address is in use, not of this machine, or not permitted.
        """
        runner = web.AppRunner(self.application(), access_log=None, handle_signals=False, shutdown_timeout=1)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._address.host, self._address.port).start()
        except OSError as error:
            await runner.cleanup()
            raise AdminError(f"admin_address {self._address}: {error.strerror}") from error
        self._runner = runner
        return Address(self._address.host, runner.addresses[0][1])

    async def stop(self) -> None:
        """Close the connections; a request in work has a second."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def application(self) -> web.Application:
        """The aiohttp application, for who serves it by other means."""
        app = web.Application(middlewares=[_errors_as_json])
        app.router.add_get("/", self._index)
        for endpoint in self.endpoints():
            add = app.router.add_get if endpoint.method == "GET" else app.router.add_post
            add(endpoint.path, endpoint.handler)
        return app

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Every endpoint but `/`, which lists them."""
        state = self._state
        return (
            Endpoint("/healthz", "200 while the program lives", self._health),
            Endpoint(
                "/readyz",
                "200 once the first pass over the sources is done; before, 503 and what is waited for",
                self._ready,
            ),
            Endpoint("/metrics", "Metrics in the text format of Prometheus", self._metrics_text),
            Endpoint("/debug/gateways", "Every gateway that has resources", _listing(state.gateways)),
            Endpoint(
                "/debug/nodes",
                "Every connected Envoy: versions sent, acknowledged and rejected, by type",
                _listing(state.nodes),
            ),
            Endpoint(
                "/debug/resources", "What one gateway is to have, by type (?gateway=NAMESPACE/NAME)", self._resources
            ),
            Endpoint("/debug/status", "The conditions of every object", _listing(state.status)),
            Endpoint("/debug/errors", "All that is not as its user wants it now", _listing(state.errors)),
            Endpoint(
                "/debug/rejections",
                "Every version that Envoys refuse now: whose fault, in whose words, and what is served instead",
                _listing(state.rejections),
            ),
            Endpoint(
                "/debug/retry",
                "POST: send once more what the Envoys of one gateway refused (?gateway=NAMESPACE/NAME)",
                self._retry,
                "POST",
            ),
        )

    async def _index(self, request: web.Request) -> web.Response:
        return await _json(request, {endpoint.path: endpoint.text for endpoint in self.endpoints()})

    async def _health(self, request: web.Request) -> web.Response:
        return await _json(request, {"status": "ok"})

    async def _ready(self, request: web.Request) -> web.Response:
        if awaited := self._state.awaited():
            return await _json(request, {"status": f"waiting for {awaited}"}, 503)
        return await _json(request, {"status": "ready"})

    async def _metrics_text(self, _: web.Request) -> web.Response:
        body = self._metrics.render() + (await self._series.render() if self._series else b"")
        return web.Response(body=body, headers={**_HEADERS, "Content-Type": CONTENT_TYPE})

    async def _resources(self, request: web.Request) -> web.Response:
        return await _of_gateway(request, self._state.resources)

    async def _retry(self, request: web.Request) -> web.Response:
        if "Origin" in request.headers:
            return await _error(request, 403, "not for the pages of a browser: any page could ask for it")
        return await _of_gateway(request, self._retried)

    def _retried(self, gateway: str) -> dict[str, int] | None:
        retried = self._state.retry(gateway)
        return None if retried is None else {"retried": retried}


async def _of_gateway(request: web.Request, answer: Callable[[str], object]) -> web.Response:
    gateway = request.query.get("gateway", "")
    if not _GATEWAY.fullmatch(gateway):
        return await _error(request, 400, "gateway is missing: ?gateway=NAMESPACE/NAME")
    found = answer(gateway)
    if found is None:
        return await _error(request, 404, f"no gateway {gateway}")
    return await _json(request, found)


def _listing(read: Callable[[], object]) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        return await _json(request, read())

    return handler


async def _json(request: web.Request, value: object, status: int = 200) -> web.Response:
    body = await encode(value, pretty=_is_for_people(request))
    return web.Response(body=body, status=status, headers={**_HEADERS, "Content-Type": "application/json"})


def _is_for_people(request: web.Request) -> bool:
    asked = request.query.get("pretty")
    return "text/html" in request.headers.get("Accept", "") if asked is None else asked in {"", "1", "true"}


async def _error(request: web.Request, status: int, message: str) -> web.Response:
    return await _json(request, {"error": message}, status)


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        response = await _error(request, error.status, _words(request, error))
        if isinstance(error, web.HTTPMethodNotAllowed):
            response.headers["Allow"] = ", ".join(sorted(error.allowed_methods))
        return response
    except Exception:
        # One request must not harm the others; the cause is ours, and goes to the log.
        logger.exception("admin request failed", path=request.path)
        return await _error(request, 500, "internal error; the log of xdserve has its cause")


def _words(request: web.Request, error: web.HTTPException) -> str:
    if isinstance(error, web.HTTPNotFound):
        return f"no such endpoint: {request.path} (/ lists them)"
    if isinstance(error, web.HTTPMethodNotAllowed):
        return f"{error.method} is not allowed here, only {', '.join(sorted(error.allowed_methods))}"
    return error.reason
