"""What all sessions of a server have in common."""

from __future__ import annotations

from dataclasses import dataclass

RESPONSE_LIMIT = 2 * 1024 * 1024
"""Bytes of resources in one response; a delta response may be split, one resource may not."""

PATIENCE = 15.0
"""Seconds. Envoy itself waits as long for the first assignment of a cluster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What all sessions of a server have in common.

    Args:
        identifier: name of this control plane, told to the client in each response.
        linger: seconds that a cluster stays after the routes to it are gone.
        patience: seconds until a missing answer is said, and no longer waited for by what does not depend on it.
        limit: bytes of resources in one response.
    """

    identifier: str
    linger: float
    patience: float = PATIENCE
    limit: int = RESPONSE_LIMIT
