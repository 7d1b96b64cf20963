"""A real model server in place of the simulation: one prompt, in its protocol, and the output from its answer."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import aiohttp
import structlog
from yarl import URL

from xdserve.router.answers import Endpoint, Failure
from xdserve.router.body import parse
from xdserve.router.metrics import RouterMetrics
from xdserve.router.passing import Answered, Headers, Passed
from xdserve.router.settings import Protocol, RouterSettings

logger = structlog.get_logger("xdserve.router")

LONGEST_HEAD = 64 * 1024
"""Bytes of one line of HTTP: Envoy, on both sides of a router, takes 60 KiB for all; aiohttp's own limit is 8 KiB."""

_READY_SECONDS = 2.0
# Below the 5 s after which common Python servers close a quiet connection: a request on its way then would be lost, and
# one that may have reached a model is not repeated.
_KEEPALIVE_SECONDS = 3.0
_MAX_ANSWER = 64 * 2**20
_MAX_TEXT = 300


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one protocol asks, and how it answers.

    `read` gives the output; it raises LookupError or TypeError where the answer has none.
    """

    ready: str
    infer: str
    ask: Callable[[str, str], object]
    read: Callable[[Any], object]
    is_ready: Callable[[Any], bool] = lambda _: True


def _ask_v1(_: str, prompt: str) -> object:
    return {"instances": [prompt]}


def _ask_v2(_: str, prompt: str) -> object:
    return {"inputs": [{"name": "prompt", "shape": [1], "datatype": "BYTES", "data": [prompt]}]}


def _ask_openai(model: str, prompt: str) -> object:
    return {"model": model, "messages": [{"role": "user", "content": prompt}]}


def _read_v2(answer: Any) -> object:  # noqa: ANN401 - JSON of any shape
    data = answer["outputs"][0]["data"]
    return data[0] if len(data) == 1 else data


def _is_ready_v1(answer: Any) -> bool:  # noqa: ANN401 - JSON of any shape
    # KServe says it as a boolean, servers of its earlier releases as text.
    return not isinstance(answer, dict) or str(answer.get("ready", True)).lower() != "false"


DIALECTS: Mapping[Protocol, Dialect] = {
    Protocol.V1: Dialect(
        ready="/v1/models/{model}",
        infer="/v1/models/{model}:predict",
        ask=_ask_v1,
        read=lambda answer: answer["predictions"][0],
        is_ready=_is_ready_v1,
    ),
    Protocol.V2: Dialect(ready="/v2/health/ready", infer="/v2/models/{model}/infer", ask=_ask_v2, read=_read_v2),
    Protocol.OPENAI: Dialect(
        ready="/v1/models",
        infer="/v1/chat/completions",
        ask=_ask_openai,
        read=lambda answer: answer["choices"][0]["message"]["content"],
    ),
}


class Upstream:
    """The work of a router with a model server behind it. `start` before use, `stop` after."""

    def __init__(self, settings: RouterSettings, metrics: RouterMetrics) -> None:
        self._model, self._metrics = settings.model_ref, metrics
        self._dialect = DIALECTS[settings.upstream_protocol]
        base = settings.upstream_url or ""
        if settings.upstream_protocol is Protocol.OPENAI:
            base = base.removesuffix("/v1")  # OpenAI's clients have it in their base URL
        self._infer, self._ready = (self._url(base, path) for path in (self._dialect.infer, self._dialect.ready))
        self._seconds = settings.upstream_timeout_seconds
        self._cookies = settings.upstream_headers is Headers.ALL
        self._session: aiohttp.ClientSession | None = None

    def _url(self, base: str, path: str) -> URL:
        return URL(base + path.format(model=quote(self._model, safe="")), encoded=True)

    async def start(self) -> None:
        """Open the pool of connections; as many as the router's own limit lets run."""
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_SECONDS)
        # A cookie is of one client: none is kept for the next one.
        jar = aiohttp.DummyCookieJar()
        self._session = aiohttp.ClientSession(
            connector=connector,
            auto_decompress=True,
            cookie_jar=jar,
            max_line_size=LONGEST_HEAD,
            max_field_size=LONGEST_HEAD,
        )

    async def stop(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    def endpoints(self) -> Sequence[Endpoint]:
        """None: a model server has its own."""
        return ()

    async def answer(self, prompt: str, beside: Passed) -> Answered:
        """Ask the model server; gives `output`.

        Raises:
            Failure: 502, it cannot be reached, refuses or does not speak its protocol; 504, it takes too long.
        """
        body = json.dumps(self._dialect.ask(self._model, prompt)).encode()
        headers = beside.headers.copy()
        headers.update({"Content-Type": "application/json", "Accept": "application/json"})
        url = URL(f"{self._infer}?{beside.query}", encoded=True) if beside.query else self._infer
        try:
            status, content, cookies = await self._request("POST", url, self._seconds, body, headers)
        except TimeoutError:
            raise self._failed("timeout", 504, f"the model server gave no answer in {self._seconds:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._failed("connection", 502, f"the model server cannot be reached: {_words(error)}") from None
        if not 200 <= status < 300:
            message = f"the model server answered {status}: {_shortened(content)}"
            raise self._failed("status", 502, message, upstreamStatus=status)
        try:
            return Answered({"output": self._dialect.read(parse(content))}, cookies if self._cookies else ())
        except (ValueError, LookupError, TypeError, AttributeError):
            message = f"the model server answered in no form of its protocol: {_shortened(content)}"
            raise self._failed("answer", 502, message, upstreamStatus=status) from None

    async def ready(self) -> bool:
        """Whether the model server answers well at the path that its protocol has for it."""
        try:
            status, content, _ = await self._request("GET", self._ready, _READY_SECONDS)
            return status == 200 and self._dialect.is_ready(json.loads(content or b"null"))
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError, RecursionError) as error:
            logger.debug("upstream not ready", error=_words(error))
            return False

    async def _request(
        self, method: str, url: URL, seconds: float, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes, Sequence[str]]:
        if self._session is None:
            raise RuntimeError("used before start")
        async with (
            asyncio.timeout(seconds),
            self._session.request(
                method,
                url,
                data=body,
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None),
            ) as response,
        ):
            return response.status, await _whole(response.content), response.headers.getall("Set-Cookie", ())

    def _failed(self, kind: str, status: int, message: str, **extra: object) -> Failure:
        self._metrics.upstream_failures.labels(kind=kind).inc()
        logger.warning("upstream failed", kind=kind, message=message)
        return Failure(status, message, extra=extra)


async def _whole(stream: aiohttp.StreamReader) -> bytes:
    content = bytearray()
    while part := await stream.readany():
        content += part
        if len(content) > _MAX_ANSWER:
            raise ValueError(f"its answer is larger than {_MAX_ANSWER} bytes")
    return bytes(content)


def _words(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno or 0
        return os.strerror(number) if number > 0 else str(error.os_error.strerror or error.os_error)
    return str(error) or type(error).__name__


def _shortened(content: bytes) -> str:
    text = " ".join(content[: 4 * _MAX_TEXT].decode(errors="replace").split())
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 3] + "..."
