"""What the router's HTTP answers are made of: endpoints, JSON, and failures as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Body = dict[str, Any]

# A model's name in a path: any but a slash, which comes as %2F; what follows a colon may be an action, not a name.
MODEL = r"{model:[^/]+(?<!:predict)(?<!:explain)}"

_PLACEHOLDER = re.compile(r"\{(\w+)[^{}]*\}")
_OPENAI = ("/v1/completions", "/v1/chat/completions")
_MAX_MESSAGE = 1000


class Endpoint(NamedTuple):
    """A method and path, what it answers (one line, for the documentation) and what makes the answer."""

    method: str
    path: str
    text: str
    handler: Handler

    @property
    def shown(self) -> str:
        """The path with `<model>` in place of a pattern."""
        return _PLACEHOLDER.sub(r"<\1>", self.path)


class Failure(Exception):
    """An answer other than a result: a status, a line for the client, and what else the answer has.

    Args:
        status: of HTTP.
        message: what is wrong, and what is allowed.
        headers: of the answer.
        extra: further fields of the JSON body.
        close: whether the connection ends with the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, object] | None = None,
        close: bool = False,
    ) -> None:
        super().__init__(message)
        self.status, self.message = status, message
        self.headers, self.extra, self.close = dict(headers or {}), dict(extra or {}), close


def reply(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """An answer in JSON."""
    return web.Response(
        body=(json.dumps(value) + "\n").encode(),
        status=status,
        headers={**(headers or {}), "Content-Type": "application/json"},
    )


def failure(path: str, error: Failure) -> web.Response:
    """The answer for a failure, in the shape of the protocol that the path belongs to."""
    message = error.message if len(error.message) <= _MAX_MESSAGE else error.message[: _MAX_MESSAGE - 3] + "..."
    if path in _OPENAI:
        kind = "invalid_request_error" if error.status < 500 else "server_error"
        kind = "rate_limit_error" if error.status == 429 else kind
        body: Body = {"error": {"message": message, "type": kind, "param": None, "code": None}}
    else:
        body = {"error": message}
    response = reply(body | error.extra, error.status, error.headers)
    if error.close:
        response.force_close()
    return response
