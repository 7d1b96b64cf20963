"""Requests of both variants of the protocol in one form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from xds.api.envoy.config.core.v3 import Node
from xds.api.envoy.service.discovery.v3 import DeltaDiscoveryRequest, DiscoveryRequest
from xds.api.google.rpc import Status

Request = DeltaDiscoveryRequest | DiscoveryRequest

_NONE: Mapping[str, str] = {}


class Ask(NamedTuple):
    """What a client says. In delta `names` come and `dropped` go; else `names` are all that it wants."""

    node: Node | None
    type_url: str
    nonce: str
    error: Status | None
    names: Sequence[str]
    dropped: Sequence[str]
    initial: Mapping[str, str]


def ask(request: Request) -> Ask:
    """The request in the form that sub-streams read."""
    if isinstance(request, DeltaDiscoveryRequest):
        return Ask(
            request.node,
            request.type_url,
            request.response_nonce,
            request.error_detail,
            request.resource_names_subscribe,
            request.resource_names_unsubscribe,
            request.initial_resource_versions,
        )
    names = request.resource_names
    return Ask(request.node, request.type_url, request.response_nonce, request.error_detail, names, (), _NONE)
