"""The router's HTTP application: the Router API itself, and what goes around every request."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import structlog
from aiohttp import web

from xdserve.router.admission import SHARE, Admission
from xdserve.router.answers import Endpoint, Failure, Handler, failure, reply
from xdserve.router.body import parse_object, text_of
from xdserve.router.metrics import CONTENT_TYPE
from xdserve.router.passing import Answered, Passed, passed
from xdserve.router.settings import RouterSettings
from xdserve.router.tracing import REQUEST_ID, TRACE, trace_of

logger = structlog.get_logger("xdserve.router")

_GONE = 499  # as nginx says it in a log: the client left before the answer
_HEADERS = {"Cache-Control": "no-store", "Server": "xdserve", "X-Content-Type-Options": "nosniff"}
# What is asked every second by kubelets and Prometheus.
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})


class Work(Protocol):
    """What answers prompts."""

    async def answer(self, prompt: str, beside: Passed) -> Answered:
        """Work on a prompt; ``beside`` is what else of its request counts.

        Raises:
            Failure: it cannot be answered.
        """
        ...

    async def ready(self) -> bool:
        """Whether prompts would be answered now."""
        ...

    def endpoints(self) -> Sequence[Endpoint]:
        """Further endpoints."""
        ...


class RouterApp:
    """The handlers of one router.

    Args:
        settings: what the router is told.
        admission: its limits.
        work: what answers prompts.
        headers: of every answer.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        settings: RouterSettings,
        admission: Admission,
        work: Work,
        headers: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._admission, self._work, self._clock = settings, admission, work, clock
        self._headers = {**_HEADERS, **(headers or {})}
        self.stopping = False
        self.active = 0

    def application(self) -> web.Application:
        """The aiohttp application with all routes."""
        app = web.Application(middlewares=[self._around])
        app.on_response_prepare.append(self._prepare)
        for endpoint in self.endpoints():
            app.router.add_route(endpoint.method, endpoint.path, endpoint.handler)
            if endpoint.method == "GET":
                app.router.add_route("HEAD", endpoint.path, endpoint.handler)
        return app

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Every endpoint."""
        return (
            Endpoint("GET", "/healthz", "200 while the program lives", self._health),
            Endpoint("GET", "/readyz", "200 when requests would be answered, else 503", self._ready),
            Endpoint("GET", "/metrics", "Metrics in the text format of Prometheus", self._metrics),
            Endpoint("POST", "/infer", "The answer to a prompt", self._infer),
            *self._work.endpoints(),
        )

    # -- The Router API ------------------------------------------------------------------------------------------

    async def _health(self, _: web.Request) -> web.Response:
        return reply({"status": "ok"})

    async def _ready(self, _: web.Request) -> web.Response:
        if self.stopping:
            return reply({"status": "stopping"}, 503)
        if not await self._work.ready():
            return reply({"status": "the model server is not ready"}, 503)
        return reply({"status": "ready"})

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self._admission.metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    async def _infer(self, request: web.Request) -> web.Response:
        content = parse_object(await self._admission.body(request))
        if "prompt" not in content:
            raise Failure(400, "prompt: missing, allowed is a string")
        prompt = text_of(content["prompt"], "prompt")
        async with self._admission.place():
            started = self._clock()
            beside = passed(request, request[TRACE], self._settings.upstream_headers)
            answered = await self._work.answer(prompt, beside)
            seconds = self._clock() - started
        settings = self._settings
        response = reply(
            {
                "modelRef": settings.model_ref,
                "prompt": prompt,
                "routerPod": settings.hostname,
                "kvEndpoints": settings.kv_endpoints,
                "processingMs": round(seconds * 1000),
                **answered.fields,
            }
        )
        for cookie in answered.cookies:
            response.headers.add("Set-Cookie", cookie)
        return response

    # -- Around every request ------------------------------------------------------------------------------------

    async def _prepare(self, request: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(self._headers)
        if trace := request.get(TRACE):
            response.headers[REQUEST_ID] = trace[REQUEST_ID]
        if self.stopping:
            response.headers["Connection"] = "close"
            response.force_close()

    @web.middleware
    async def _around(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        started = self._clock()
        request[TRACE] = trace_of(request.headers)
        share = request[SHARE] = self._admission.memory.share()
        self.active += 1
        response: web.StreamResponse | None = None
        try:
            response = await _answer(request, handler)
        finally:
            self.active -= 1
            share.close()
            self._tell(request, response, self._clock() - started)
        return response

    def _tell(self, request: web.Request, response: web.StreamResponse | None, seconds: float) -> None:
        self._admission.metrics.answered(response.status if response else None, seconds)
        say = logger.debug if request.path in _QUIET else logger.info
        say(
            "request",
            method=request.method,
            path=request.path,
            status=response.status if response else _GONE,
            ms=round(seconds * 1000, 3),
            bytes=_size(response) if request.method != "HEAD" else 0,
            request_id=request[TRACE][REQUEST_ID],
            traceparent=request[TRACE].get("traceparent"),
            peer=request.remote,
        )


def _size(response: web.StreamResponse | None) -> int:
    """The bytes of an answer's body; of a stream those written until now."""
    if response is None:
        return 0
    if isinstance(response, web.Response) and isinstance(response.body, bytes):
        return len(response.body)
    return response.body_length


async def _answer(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """The handler's answer; what goes wrong becomes one, too."""
    try:
        return await handler(request)
    except Failure as error:
        return failure(request.path, error)
    except web.HTTPException as error:
        return failure(request.path, _of_aiohttp(request, error))
    except ConnectionError:
        raise  # the client left
    except Exception:
        # One request must not harm the others; the cause is ours, and goes to the log.
        logger.exception("request failed", path=request.path, request_id=request[TRACE][REQUEST_ID])
        if request.writer.output_size:
            raise  # the answer has begun; the end of the connection says that it is none
        return failure(request.path, Failure(500, "internal error; the log of the router has its cause"))


def _of_aiohttp(request: web.Request, error: web.HTTPException) -> Failure:
    if isinstance(error, web.HTTPNotFound):
        return Failure(404, f"no such endpoint: {request.path}")
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return Failure(405, f"{error.method} is not allowed here, only {allowed}", headers={"Allow": allowed})
    return Failure(error.status, error.reason)
