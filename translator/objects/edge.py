"""``spec.edge`` of a ServiceGateway: the requests that its gateway accepts from clients.

Each default is the first value of its list. All of these are part of the listener, so a change cuts running streams.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from translator.objects.base import OurModel
from translator.objects.fields import Milliseconds
from translator.objects.quantity import WindowSize
from translator.objects.refusal import says


class Edge(OurModel):
    """Sizes are quantities of bytes, ``request_timeout`` is in milliseconds."""

    http10: Literal["Allow", "Reject"] = "Allow"
    """HTTP/1.0 requests: `Allow` serves them, also without a Host header; `Reject` answers 426."""
    upgrade_tls: Literal["Ignore", "Reject"] = Field(default="Ignore", alias="upgradeTLS")
    """`Upgrade: TLS/1.2` in plain text, as Java's clients send it: `Ignore` serves the request without the upgrade,
    `Reject` answers 403."""
    trailing_dot: Literal["Strip", "Keep"] = "Strip"
    """A host that ends with a dot: `Strip` removes the dot before routing, `Keep` treats it as another host."""
    request_id: Literal["Replace", "Preserve"] = Field(default="Replace", alias="requestID")
    """`x-request-id` of a client: `Replace` sets a new one, `Preserve` keeps the client's."""
    underscores: Literal["Reject", "Drop", "Allow"] = "Reject"
    """Headers with an underscore in the name: `Reject` refuses the request (400, over HTTP/2 a reset of the stream),
    `Drop` removes the header, `Allow` passes it."""
    escaped_slashes: Literal["Redirect", "Keep", "Reject"] = "Redirect"
    """`%2F` and `%5C` in a path: `Redirect` answers 307 to the unescaped path, `Keep` passes them, `Reject` answers
    400. With `Keep` a model server that decodes them sees another path than the rules do."""
    header_case: Literal["Lower", "Preserve"] = "Lower"
    """Header names over HTTP/1: `Lower` sends them in lower case, `Preserve` as the other side wrote them."""
    stream_window: WindowSize = "1Mi"
    """HTTP/2 flow control: bytes that a client may send on one stream ahead of what is read."""
    connection_window: WindowSize = "16Mi"
    """HTTP/2 flow control: the same for all streams of a connection together."""
    concurrent_streams: Annotated[int, Field(ge=1, le=100_000), says("1..100000")] = 100
    """HTTP/2 streams of one connection at once."""
    request_timeout: Milliseconds = Field(default="5m", validate_default=True)
    """Until the last byte of a request has arrived, or its answer has begun: then 408. It does not limit answers; 0s is
    no limit."""
