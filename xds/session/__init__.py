"""The protocol without I/O: requests in, responses and events out. No clock, no task, no socket."""

from __future__ import annotations

from xds.session.events import (
    Acknowledged,
    Event,
    LocalError,
    Overdue,
    ProtocolError,
    Rejected,
    Response,
    Stale,
    Subscribed,
    TypeView,
    UnknownType,
)
from xds.session.requests import Request
from xds.session.session import Session, Variant
from xds.session.terms import Terms

__all__ = [
    "Acknowledged",
    "Event",
    "LocalError",
    "Overdue",
    "ProtocolError",
    "Rejected",
    "Request",
    "Response",
    "Session",
    "Stale",
    "Subscribed",
    "Terms",
    "TypeView",
    "UnknownType",
    "Variant",
]
