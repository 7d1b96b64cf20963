"""The made parts of docs/edge.md: limits, retries, and the answers that a gateway gives itself."""

from __future__ import annotations

from datetime import timedelta

from markdown_tables import code, oneline, table

from bootstrap.envoy import MAX_CONNECTIONS
from translator.envoy.clusters import HTTP1_IDLE, MAX_RETRIES
from translator.envoy.limits import BUFFER_LIMIT, CONNECTION_IDLE, HEADERS_KIB, HEADERS_TIMEOUT, MOST_HEADERS
from translator.envoy.local_replies import LOCAL_REPLIES, OTHER, LocalReply
from translator.envoy.routes import RETRIES
from translator.objects.edge import Edge
from translator.objects.fields import duration
from translator.plan import RETRY_AFTER
from translator.planners.options import CONNECT_TIMEOUT, IDLE_TIMEOUT, MAX_REQUEST_BYTES, REQUEST_TIMEOUT
from translator.planners.routing import ERRORS, UNAVAILABLE


def limits() -> str:
    """One row a setting or limit: where it is changed, the default, what it is."""
    edge = ((f"edge.{field.alias}", str(field.default), oneline(field)) for field in Edge.model_fields.values())
    policy = (
        ("buffer.maxRequestBytes", f"{MAX_REQUEST_BYTES >> 20}Mi", "Of a request body, what is kept for retries."),
        ("timeouts.connect", duration(CONNECT_TIMEOUT), "To connect to one endpoint."),
        ("timeouts.request", duration(REQUEST_TIMEOUT), "From the end of a request to the end of its answer."),
        ("timeouts.idle", duration(IDLE_TIMEOUT), "Between two bytes; at least the request timeout."),
    )
    fixed = (
        ("", f"{HEADERS_KIB} KiB", f"All headers of a request together, and {MOST_HEADERS} of them at the most."),
        ("", seconds(HEADERS_TIMEOUT), "Until the headers of a request are complete."),
        ("", seconds(CONNECTION_IDLE), "A connection of a client without a request."),
        ("", seconds(HTTP1_IDLE), "An HTTP/1 connection to a backend without a request."),
        ("", f"{MAX_CONNECTIONS:,}", "Connections of clients to one Envoy."),
        ("", f"{MAX_RETRIES:,}", "Retries at once of one backend, by one Envoy."),
        ("", f"{BUFFER_LIMIT >> 10} KiB", "What Envoy reads ahead of one connection."),
    )
    rows = ((code(field), code(default), what) for field, default, what in (*edge, *policy, *fixed))
    return table(("field", "default", "what it is"), rows)


def seconds(time: timedelta) -> str:
    """A duration as users write it."""
    return duration(int(time.total_seconds() * 1000))


def retries() -> str:
    """How often, and how long at the most."""
    tries = RETRIES + 1
    bound = seconds(timedelta(milliseconds=tries * CONNECT_TIMEOUT))
    return (
        f"- A request is tried {tries} times at the most. A backend whose endpoints all refuse answers 503 after the "
        "pauses between the tries, which are below 0.25s each, and below 2s together.\n"
        f"- A backend whose endpoints all swallow connections answers 503 after {tries} connect timeouts "
        f"({tries} x {duration(CONNECT_TIMEOUT)} = {bound} by default) and these pauses.\n"
        "- A request timeout, or an idle timeout that somebody wrote, ends the tries earlier, with 504.\n"
    )


def answers() -> str:
    """One row an answer of the gateway's own: of Envoy, and of its routes."""
    replies = [
        (str(reply.status), reply.reason, reply.when, _grpc_status(reply), reply.retry_after) for reply in LOCAL_REPLIES
    ]
    routes = [
        (str(status), reason, when, GRPC_OF_HTTP[status], status == UNAVAILABLE)
        for reason, (status, when) in ERRORS.items()
    ]
    rows = sorted([*replies, *routes])
    rows.append(("4xx, 5xx", OTHER.reason, OTHER.when, "by HTTP's", False))
    return table(
        ("status", "reason", "when", "gRPC status", "Retry-After"),
        (
            (status, code(reason), when, grpc, f"{RETRY_AFTER} s" if retry else "")
            for status, reason, when, grpc, retry in rows
        ),
    )


def _grpc_status(reply: LocalReply) -> str:
    """A client by HTTP/2 gets some of them as a reset of the stream."""
    if reply.reason in RESETS:
        return "reset"
    return GRPC_CODES[reply.grpc_status] if reply.grpc_status else GRPC_OF_HTTP.get(reply.status, UNKNOWN)


RESETS = {"UnderscoreInHeader", "BadRequest", "HeadersTooLarge"}
UNKNOWN = "`UNKNOWN`"
GRPC_CODES = {
    3: "`INVALID_ARGUMENT`", 4: "`DEADLINE_EXCEEDED`", 8: "`RESOURCE_EXHAUSTED`", 12: "`UNIMPLEMENTED`",
    14: "`UNAVAILABLE`",
}  # fmt: skip
GRPC_OF_HTTP = {
    403: "`PERMISSION_DENIED`", 404: "`UNIMPLEMENTED`", 502: "`UNAVAILABLE`", 503: "`UNAVAILABLE`",
    504: "`UNAVAILABLE`",
}  # fmt: skip
"""Envoy's own mapping."""
