"""Encoded resources: made once, then joined into every response that carries them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b

from xds.api.envoy.config.core.v3 import ControlPlane
from xds.api.envoy.service.discovery.v3 import DeltaDiscoveryResponse
from xds.types import ResourceType
from xds.wire.decode import decode
from xds.wire.encode import encode
from xds.wire.varint import delimited

_NO_NAMES: frozenset[str] = frozenset()
# The field `type_url` of Any.
_TYPE_URLS = {kind: b"\n" + delimited(kind.encode()) for kind in ResourceType}


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource as it goes on the wire. Equal if type, name and version are, and the version is of the content."""

    type: ResourceType
    name: str
    version: str
    # The whole field `resources` of a DeltaDiscoveryResponse: tag, length, Resource{version, resource, name}.
    frame: bytes = field(compare=False, repr=False)
    # The clusters that a route configuration sends to; empty for other types.
    uses: frozenset[str] = field(default=_NO_NAMES, compare=False)
    # Whether it is an assignment without any endpoint.
    vacant: bool = field(default=False, compare=False)
    # Where it comes from; passed through.
    origin: object = field(default=None, compare=False)

    @property
    def body(self) -> bytes:
        """The encoded message itself, taken from the frame (a few µs)."""
        packed = decode(DeltaDiscoveryResponse, self.frame).resources[0].resource
        return packed.value if packed else b""


def resource(
    kind: ResourceType, name: str, body: bytes, *, uses: frozenset[str] = _NO_NAMES, origin: object = None
) -> Resource:
    """Frame an encoded message. Its version is a hash of its bytes, the same in every replica and after a restart."""
    version = blake2b(body, digest_size=8).hexdigest()
    packed = delimited(_TYPE_URLS[kind] + b"\x12" + delimited(body) if body else _TYPE_URLS[kind])
    frame = delimited(b"\n\x10" + version.encode() + b"\x12" + packed + b"\x1a" + delimited(name.encode()))
    return Resource(kind, name, version, b"\x12" + frame, uses, origin=origin)


def delta_response(
    kind: ResourceType, nonce: str, resources: Iterable[Resource], removed: Iterable[str], control_plane: str
) -> bytes:
    """An encoded DeltaDiscoveryResponse: the frames as they are, and what is around them."""
    rest = DeltaDiscoveryResponse(
        type_url=kind,
        nonce=nonce,
        removed_resources=list(removed),
        control_plane=ControlPlane(identifier=control_plane),
    )
    return b"".join([*(made.frame for made in resources), encode(rest)])
