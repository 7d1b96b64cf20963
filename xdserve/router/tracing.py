"""What goes with a request from hop to hop: its id and its trace context."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from aiohttp import web

REQUEST_ID = "x-request-id"
TRACE = web.RequestKey("trace", Mapping[str, str])

_CONTEXT = ("traceparent", "tracestate")
_MAX = 1024


def trace_of(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers to hand on, by name in small letters; an id is made where none came, or none that can be logged."""
    found = {name: value for name in _CONTEXT if _usable(value := headers.get(name, ""))}
    request_id = headers.get(REQUEST_ID, "")
    return {REQUEST_ID: request_id if _usable(request_id) else str(uuid.uuid4()), **found}


def _usable(value: str) -> bool:
    return 0 < len(value) <= _MAX and value.isascii() and value.isprintable()
