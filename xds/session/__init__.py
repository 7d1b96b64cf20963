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
from xds.session.requests import MOST_FIELDS, MOST_NAMES, Request
from xds.session.session import Session, Variant
from xds.session.terms import Terms

__all__ = [
    "MOST_FIELDS",
    "MOST_NAMES",
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
