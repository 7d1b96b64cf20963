"""The made parts of docs/edge.md: limits, retries, and the answers that a gateway gives itself."""

from __future__ import annotations

from datetime import timedelta

from markdown_tables import code, oneline, table

from bootstrap.envoy import MAX_CONNECTIONS
from translator.envoy.clusters import HTTP1_IDLE
from translator.envoy.listeners import CONNECTION_IDLE, HEADERS_TIMEOUT
from translator.envoy.local_replies import LOCAL_REPLIES, OTHER
from translator.envoy.routes import RETRIES
from translator.objects.edge import Edge
from translator.objects.fields import duration
from translator.plan import RETRY_AFTER
from translator.planners.options import CONNECT_TIMEOUT, IDLE_TIMEOUT, MAX_REQUEST_BYTES, REQUEST_TIMEOUT


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
        ("", "60 KiB", "All headers of a request together, and 100 of them at the most."),
        ("", seconds(HEADERS_TIMEOUT), "Until the headers of a request are complete."),
        ("", seconds(CONNECTION_IDLE), "A connection of a client without a request."),
        ("", seconds(HTTP1_IDLE), "An HTTP/1 connection to a backend without a request."),
        ("", f"{MAX_CONNECTIONS:,}", "Connections of clients to one Envoy."),
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
        f"- A request is tried {tries} times at the most. A backend whose endpoints all refuse answers 503 at once.\n"
        f"- A backend whose endpoints all swallow connections answers 503 after {tries} connect timeouts "
        f"({tries} x {duration(CONNECT_TIMEOUT)} = {bound} by default) and the pauses between the tries, "
        "each of them below 0.25s.\n"
    )


def answers() -> str:
    """One row an answer of Envoy's own."""
    rows = [
        (
            str(reply.status),
            code(reply.reason),
            reply.when,
            GRPC_CODES.get(reply.grpc_status or GRPC_OF_HTTP.get(reply.status, 0), ""),
            f"{RETRY_AFTER} s" if reply.retry_after else "",
        )
        for reply in (*LOCAL_REPLIES, OTHER)
    ]
    return table(("status", "reason", "when", "gRPC status", "Retry-After"), sorted(rows))


GRPC_OF_HTTP = {502: 14, 503: 14, 504: 14, 404: 12, 403: 7}
GRPC_CODES = {
    4: "`DEADLINE_EXCEEDED`", 7: "`PERMISSION_DENIED`", 8: "`RESOURCE_EXHAUSTED`", 12: "`UNIMPLEMENTED`",
    14: "`UNAVAILABLE`",
}  # fmt: skip
