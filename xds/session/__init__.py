"""The protocol without I/O: requests in, responses and events out. No clock, no task, no socket."""

from __future__ import annotations

from xds.session.delta import DeltaSession
from xds.session.events import (
    Acknowledged,
    Event,
    LocalError,
    ProtocolError,
    Refusal,
    Rejected,
    Response,
    Stale,
    Subscribed,
    TypeView,
    UnknownType,
)

__all__ = [
    "Acknowledged",
    "DeltaSession",
    "Event",
    "LocalError",
    "ProtocolError",
    "Refusal",
    "Rejected",
    "Response",
    "Stale",
    "Subscribed",
    "TypeView",
    "UnknownType",
]
