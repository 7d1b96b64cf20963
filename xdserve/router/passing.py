"""What of a request goes on to the model server beside its prompt, and what of the answer comes back beside its output.

Where the model server is a gateway, its rules and splits are for the client: they look at its headers, host and query,
and keep it with a backend by a cookie.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from aiohttp import web
from multidict import CIMultiDict


class Headers(StrEnum):
    """Which headers go on: those of the trace, or all that are the client's."""

    TRACE = "trace"
    ALL = "all"


class Passed(NamedTuple):
    """Goes on to the model server."""

    headers: CIMultiDict[str]
    query: str = ""


class Answered(NamedTuple):
    """Comes back: what the answer has beside the router's own fields, and values of Set-Cookie."""

    fields: Mapping[str, object]
    cookies: Sequence[str] = ()


# RFC 9110: those of the connection (7.6.1), of its proxies (11.7), and of what the router says and takes for itself.
_OWN = frozenset({
    "connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "te", "trailer",
    "transfer-encoding", "upgrade", "expect", "range", "accept",
})  # fmt: skip
_OWN_PREFIXES = ("accept-", "content-", "if-")


def passed(request: web.Request, trace: Mapping[str, str], which: Headers) -> Passed:
    """What of a request goes on. Its trace goes in any case."""
    if which is Headers.TRACE:
        return Passed(CIMultiDict(trace))
    named = {name.strip().lower() for value in request.headers.getall("Connection", ()) for name in value.split(",")}
    headers = CIMultiDict((name, value) for name, value in request.headers.items() if _goes_on(name.lower(), named))
    headers.update(trace)
    return Passed(headers, request.rel_url.raw_query_string)


def _goes_on(name: str, of_connection: set[str]) -> bool:
    return not (name in _OWN or name in of_connection or name.startswith(_OWN_PREFIXES))
