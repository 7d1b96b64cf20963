"""A client of one session, by hand: says exactly what a test wants said, and decodes what comes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

from tests.support.model_bodies import CLUSTER, ENDPOINT, LISTENER, ROUTE, make, read
from tests.support.streams import responses
from xds.api.envoy.config.core.v3 import Node
from xds.api.envoy.service.discovery.v3 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
)
from xds.api.google.rpc import Status
from xds.gateway import Gateway
from xds.session import Terms, Variant
from xds.types import SEND_ORDER, ResourceType
from xds.wire import decode

__all__ = [
    "CLUSTER",
    "ENDPOINT",
    "EXTENSION",
    "LISTENER",
    "ROUTE",
    "SCOPED_ROUTE",
    "SECRET",
    "Client",
    "Got",
    "SotwClient",
    "connected",
    "make",
    "what",
]

SECRET, EXTENSION, SCOPED_ROUTE = ResourceType.SECRET, ResourceType.EXTENSION, ResourceType.SCOPED_ROUTE

_numbers = count(1)


def terms(linger=5.0, patience=15.0, limit=1 << 20):
    return Terms(identifier="xdserve-test", linger=linger, patience=patience, limit=limit)


@dataclass(frozen=True)
class Got:
    """A response as the client sees it."""

    type: ResourceType
    names: list[str]
    removed: list[str]
    nonce: str
    versions: dict[str, str]
    control_plane: str
    version: str = ""


def what(responses):
    """Types, names and removals of responses: what tests are about."""
    return [(got.type.short, got.names, got.removed) for got in responses]


class Client:
    """A stream over a gateway with the given resources, and a clock that stands still until a test moves it."""

    variant = Variant.DELTA

    def __init__(
        self, *resources, linger=5.0, patience=15.0, limit=1 << 20, gateway=None, node_id="envoy", types=SEND_ORDER
    ):
        self.types = types
        self.gateway = gateway or Gateway("models/iris", terms(linger, patience, limit))
        self.gateway.publish(resources)
        self.scope = self.gateway.scope
        self.now = 100.0
        self.linger = linger
        self.node_id = node_id
        self.number = None
        self.reconnect()

    def reconnect(self, *, lost=True):
        """A new stream; the gateway is told that the one before it was `lost`."""
        if self.number is not None:
            self.gateway.leave(self.number, lost=lost)
        self.number = next(_numbers)
        self.session = self.gateway.connect(
            self.number, node_id=self.node_id, variant=self.variant, types=self.types, prefix="s-"
        )

    def another(self, node_id="another"):
        """Another Envoy of the same gateway."""
        return type(self)(gateway=self.gateway, node_id=node_id)

    def publish(self, *put, remove=()):
        self.gateway.publish(put, remove)

    def say(self, type_, subscribe=(), unsubscribe=(), *, nonce="", error=None, initial=None, node=None):
        """Send a request; the events it caused."""
        request = DeltaDiscoveryRequest(
            node=Node(id=node, cluster="models/iris") if node else None,
            type_url=type_,
            resource_names_subscribe=list(subscribe),
            resource_names_unsubscribe=list(unsubscribe),
            initial_resource_versions=dict(initial or {}),
            response_nonce=nonce,
            error_detail=Status(code=13, message=error) if error is not None else None,
        )
        return self.gateway.receive(self.number, request, self.now)

    def get(self):
        """All that the server sends now."""
        return [_got(response.frame) for response in responses(self.session, self.now)]

    def ask(self, type_, subscribe=(), unsubscribe=(), **more):
        """Send a request; all that the server sends upon it."""
        self.say(type_, subscribe, unsubscribe, **more)
        return self.get()

    def ack(self, got, subscribe=(), unsubscribe=()):
        """Acknowledge a response; all that the server sends upon it."""
        return self.ask(got.type, subscribe, unsubscribe, nonce=got.nonce)

    def nack(self, got, message="no good", subscribe=()):
        return self.ask(got.type, subscribe, nonce=got.nonce, error=message)

    def take(self, type_, subscribe=(), **more):
        """Ask and acknowledge all that comes of it, until it is quiet; what came."""
        return self.drain(self.ask(type_, subscribe, **more))

    def drain(self, responses=None):
        """Acknowledge everything until it is quiet; what came."""
        pending = self.get() if responses is None else list(responses)
        seen = []
        while pending:
            got = pending.pop(0)
            seen.append(got)
            pending.extend(self.ack(got))
        return seen

    def later(self, seconds):
        self.now += seconds
        return self.get()

    def view(self, type_):
        return next(view for view in self.session.view() if view.type is type_)

    def held(self, type_):
        """The versions that the server knows this Envoy to have."""
        return dict(self.session._substreams[type_].acknowledged)


def _got(frame):
    response = decode(DeltaDiscoveryResponse, frame)
    versions = {entry.name: entry.version for entry in response.resources}
    return Got(
        type=ResourceType(response.type_url),
        names=[entry.name for entry in response.resources],
        removed=list(response.removed_resources),
        nonce=response.nonce,
        versions=versions,
        control_plane=response.control_plane.identifier if response.control_plane else "",
    )


class SotwClient(Client):
    """A stream of the state of the world: each request lists all names that are wanted, and the last version taken."""

    variant = Variant.SOTW

    def reconnect(self, *, lost=True):
        super().reconnect(lost=lost)
        self.asked = {}
        self.nonces = {}
        self.taken = getattr(self, "taken", {})

    def say(self, type_, names=None, *, nonce=None, error=None, node=None, version=None):
        """Send a request, by default with the names of the one before and the nonce of the last response."""
        self.asked[type_] = list(names) if names is not None else self.asked.get(type_, [])
        request = DiscoveryRequest(
            node=Node(id=node, cluster="models/iris") if node else None,
            type_url=type_,
            resource_names=self.asked[type_],
            version_info=self.taken.get(type_, "") if version is None else version,
            response_nonce=self.nonces.get(type_, "") if nonce is None else nonce,
            error_detail=Status(code=13, message=error) if error is not None else None,
        )
        return self.gateway.receive(self.number, request, self.now)

    def get(self):
        came = [_got_of_the_world(response.frame) for response in responses(self.session, self.now)]
        self.nonces.update((got.type, got.nonce) for got in came)
        return came

    def ask(self, type_, names=None, **more):
        self.say(type_, names, **more)
        return self.get()

    def ack(self, got, names=None):
        self.taken[got.type] = got.version
        return self.ask(got.type, names, nonce=got.nonce)

    def nack(self, got, message="no good", names=None):
        return self.ask(got.type, names, nonce=got.nonce, error=message)

    def take(self, type_, names=None, **more):
        return self.drain(self.ask(type_, names, **more))


def connected(kind=Client, **more):
    """A client with all acknowledged: clusters a and b with assignments, a listener, and a route to both."""
    client = kind(
        make(CLUSTER, "a"), make(CLUSTER, "b"), make(ENDPOINT, "a"), make(ENDPOINT, "b"),
        make(LISTENER, "http", uses=["r"]), make(ROUTE, "r", uses=["a", "b"]), **more,
    )  # fmt: skip
    client.take(CLUSTER)
    client.take(ENDPOINT, ["a", "b"])
    client.take(LISTENER)
    client.take(ROUTE, ["r"])
    return client


def _got_of_the_world(frame):
    response = decode(DiscoveryResponse, frame)
    type_ = ResourceType(response.type_url)
    held = [read(packed.value) for packed in response.resources]
    return Got(
        type=type_,
        names=[name for name, _ in held],
        removed=[],
        nonce=response.nonce,
        versions={name: one.version for name, one in held},
        control_plane=response.control_plane.identifier if response.control_plane else "",
        version=response.version_info,
    )
