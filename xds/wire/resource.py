"""Encoded resources: made once, then joined into every response that carries them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import blake2b

from xds.api.envoy.config.core.v3 import ControlPlane
from xds.api.envoy.config.endpoint.v3 import ClusterLoadAssignment
from xds.api.envoy.service.discovery.v3 import DeltaDiscoveryResponse, DiscoveryResponse
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
    # The frame, in parts: what many resources have in common is one object in all of them.
    parts: tuple[bytes, ...] = field(compare=False, repr=False)
    # The clusters that a route configuration sends to; empty for other types.
    uses: frozenset[str] = field(default=_NO_NAMES, compare=False)
    # Whether it is an assignment without any endpoint.
    vacant: bool = field(default=False, compare=False)
    # Whether it is a cluster that needs more than its assignment to be warm: health checks, secrets.
    slow: bool = field(default=False, compare=False)
    # Where it comes from; passed through.
    origin: object = field(default=None, compare=False)

    @property
    def frame(self) -> bytes:
        """The whole field `resources` of a DeltaDiscoveryResponse: tag, length, Resource{version, resource, name}."""
        return self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)

    @property
    def size(self) -> int:
        """Bytes of the frame."""
        return sum(map(len, self.parts))

    @property
    def body(self) -> bytes:
        """The encoded message itself, taken from the frame (a few µs)."""
        packed = decode(DeltaDiscoveryResponse, self.frame).resources[0].resource
        return packed.value if packed else b""

    @property
    def bare(self) -> memoryview:
        """The whole field `resources` of a DiscoveryResponse: the same message without name and version.

        It stands in the frame as the field `resource`, which has the same number.
        """
        frame = self.frame
        tail = 1 + len(delimited(self.name.encode()))
        content = len(frame) - 1
        head = 1 + next(size for size in range(1, 6) if content - size < 1 << 7 * size)
        return memoryview(frame)[head + 2 + len(self.version) : -tail]


def resource(
    kind: ResourceType, name: str, body: bytes, *, uses: frozenset[str] = _NO_NAMES, origin: object = None
) -> Resource:
    """Frame an encoded message. Its version is a hash of its bytes, the same in every replica and after a restart."""
    version = blake2b(body, digest_size=8).hexdigest()
    packed = delimited(_TYPE_URLS[kind] + b"\x12" + delimited(body) if body else _TYPE_URLS[kind])
    frame = delimited(b"\n\x10" + version.encode() + b"\x12" + packed + b"\x1a" + delimited(name.encode()))
    return Resource(kind, name, version, (b"\x12" + frame,), uses, origin=origin)


def sharing(made: Resource, shared: Iterable[bytes]) -> Resource:
    """The same resource, which holds those of ``shared`` that stand in it, in this order, as these very objects.

    So resources that have most of their bytes in common hold these once.
    """
    frame, parts, end = made.frame, [], 0
    for part in shared:
        at = frame.find(part, end)
        if at >= 0:
            parts += [frame[end:at], part]
            end = at + len(part)
    held = (*parts, frame[end:])
    return Resource(made.type, made.name, made.version, held, made.uses, made.vacant, made.slow, made.origin)


def empty_assignment(cluster: str) -> Resource:
    """The assignment of a cluster that has none: without endpoints."""
    body = encode(ClusterLoadAssignment(cluster_name=cluster))
    return replace(resource(ResourceType.ENDPOINT, cluster, body), vacant=True)


def response(kind: ResourceType, nonce: str, resources: Iterable[Resource], version: str, control_plane: str) -> bytes:
    """An encoded DiscoveryResponse of the state of the world: the frames without what only delta has."""
    said = b"\n" + delimited(version.encode()) + b"*" + delimited(nonce.encode())
    rest = _rest(DiscoveryResponse, kind, control_plane)
    return b"".join([*(made.bare for made in resources), rest, said])


def version_of(resources: Iterable[Resource]) -> str:
    """The version of many resources together, whatever their order; the same in every replica."""
    parts = sorted(f"{made.name}\0{made.version}" for made in resources)
    return blake2b("\0".join(parts).encode(), digest_size=8).hexdigest()


def delta_response(
    kind: ResourceType, nonce: str, resources: Iterable[Resource], removed: Iterable[str], control_plane: str
) -> bytes:
    """An encoded DeltaDiscoveryResponse: the frames as they are, and what is around them."""
    said = b"*" + delimited(nonce.encode())
    gone = [b"2" + delimited(name.encode()) for name in removed]
    rest = _rest(DeltaDiscoveryResponse, kind, control_plane)
    return b"".join([*(part for made in resources for part in made.parts), rest, said, *gone])


@cache
def _rest(cls: type[DiscoveryResponse | DeltaDiscoveryResponse], kind: ResourceType, control_plane: str) -> bytes:
    """What all responses of a type have in common; fields may come in any order."""
    return encode(cls(type_url=kind, control_plane=ControlPlane(identifier=control_plane)))
