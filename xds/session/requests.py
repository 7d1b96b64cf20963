"""Requests of both variants of the protocol in one form, and what bounds them: clients are not to be trusted."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from xds.api.envoy.config.core.v3 import Node
from xds.api.envoy.service.discovery.v3 import DeltaDiscoveryRequest, DiscoveryRequest
from xds.api.google.rpc import Status
from xds.session.events import ProtocolError

MOST_NAMES = 100_000
"""Names of one type that a client may ask for at once; each is remembered for as long as its stream lasts."""

LONGEST_NAME = 1_024
"""Characters of a name, and of a version: of those that a client brings, both are remembered as long."""

LONGEST_WORDS = 16 * 1024
"""Characters that are kept of what a client says of a response that it refuses: the words are stored with the version,
and searched for each name."""

MOST_FIELDS = 1_000_000
"""Fields of one request: room for all names that a stream may have and their versions."""

_LONGEST_NONCE = 128
"""Characters; those of this server are far shorter."""

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
    version: str = ""
    """What the client took last, in the state of the world."""


def ask(request: Request) -> Ask:
    """The request in the form that sub-streams read.

    Raises:
        ProtocolError: it holds more, or longer, names and versions than a stream may have.
    """
    if error := request.error_detail:
        error = Status(code=error.code, message=error.message[:LONGEST_WORDS])
    nonce = request.response_nonce[:_LONGEST_NONCE]
    if isinstance(request, DeltaDiscoveryRequest):
        names, dropped = request.resource_names_subscribe, request.resource_names_unsubscribe
        initial = request.initial_resource_versions
        _check(names, initial, initial.values())
        return Ask(request.node, request.type_url, nonce, error, names, dropped, initial)
    _check(request.resource_names)
    return Ask(request.node, request.type_url, nonce, error, request.resource_names, (), _NONE, request.version_info)


def _check(*kinds: Collection[str]) -> None:
    for texts in kinds:
        if len(texts) > MOST_NAMES:
            raise ProtocolError("RESOURCE_EXHAUSTED", f"{len(texts)} names or versions of a type, allowed {MOST_NAMES}")
        if texts and (longest := max(map(len, texts))) > LONGEST_NAME:
            raise ProtocolError(
                "INVALID_ARGUMENT", f"a name or version of {longest} characters, allowed {LONGEST_NAME}"
            )
