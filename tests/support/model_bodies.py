"""What the resources of the model Envoys hold: not Envoy's messages but `Body` as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b

from xds.api.envoy.config.endpoint.v3 import ClusterLoadAssignment
from xds.types import ResourceType
from xds.wire import Resource, decode, resource

CLUSTER, ENDPOINT = ResourceType.CLUSTER, ResourceType.ENDPOINT
LISTENER, ROUTE = ResourceType.LISTENER, ResourceType.ROUTE


@dataclass(frozen=True)
class Body:
    """Content of a resource: a revision, the names it uses (routes: clusters; listeners: routes), and its fault."""

    name: str = ""
    """A resource of the state of the world has its name nowhere else."""
    rev: int = 0
    uses: tuple[str, ...] = ()
    bad: str = ""
    """"" for good; "alone" is refused while the rest of its response is taken; "all" spoils the whole response;
    "late" is a cluster that is refused when its assignment comes."""
    bad_for: tuple[str, ...] = ()
    """The node ids that refuse it; none: all do."""
    named: bool = True
    """Whether the words of the refusal say its name."""
    health: bool = False
    """Whether the cluster has health checks: an Envoy warms it until they pass."""

    def fault(self, node_id: str) -> str:
        """What the Envoy has against it."""
        return self.bad if not self.bad_for or node_id in self.bad_for else ""


@dataclass(frozen=True)
class Held:
    """A version of a resource as a client has it; without a body it is an empty assignment."""

    version: str
    body: Body | None


def make(
    type_: ResourceType, name: str, rev: int = 0, uses: Iterable[str] = (), bad: str = "", **more: object
) -> Resource:
    """A resource with such a body; a route's uses and a cluster's health checks are told to the server too."""
    return framed(type_, Body(name=name, rev=rev, uses=tuple(uses), bad=bad, **more))


def framed(type_: ResourceType, body: Body) -> Resource:
    """The resource with that body."""
    told = frozenset(body.uses) if type_ is ROUTE else frozenset()
    said = {key: value for key, value in asdict(body).items() if value != getattr(Body, key)}
    return replace(resource(type_, body.name, json.dumps(said).encode(), uses=told), slow=body.health)


def read(data: bytes, version: str = "") -> tuple[str, Held]:
    """Name and content of a resource; its version is a hash, so it need not be told."""
    version = version or blake2b(data, digest_size=8).hexdigest()
    if not data.startswith(b"{"):
        return decode(ClusterLoadAssignment, data).cluster_name, Held(version, None)
    fields = json.loads(data)
    for key in ("uses", "bad_for"):
        fields[key] = tuple(fields.get(key, ()))
    body = Body(**fields)
    return body.name, Held(version, body)
