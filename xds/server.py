"""The grpc.aio shell around sessions: streams, wake-ups, flow control, readiness. Reads the clock; owns the tasks."""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Protocol

import grpc
import grpc.aio

from xds.api.envoy.config.core.v3 import Node
from xds.api.envoy.service.discovery.v3 import DeltaDiscoveryRequest
from xds.gateway import Gateway
from xds.memory import Rejection
from xds.scope import Changes, Scope
from xds.session import Event, ProtocolError, Response, Session, Terms, TypeView, Variant
from xds.types import ResourceType
from xds.wire import DecodeError, Resource, decode

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
METHOD = "DeltaAggregatedResources"

_UNREADY = "this server does not know its gateways yet"
_STOPPING = "this server is going down"

OPTIONS = (
    # An Envoy that reconnects names every version it has; at the default of 4 MiB large ones would never get in.
    ("grpc.max_receive_message_length", 32 * 1024 * 1024),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Envoys ping too; by default a server calls more than one ping in five quiet minutes abuse and hangs up.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    # A second server on the same port is an error to be told, not a partner to share with.
    ("grpc.so_reuseport", 0),
)


LONGEST_ID = 256
"""Characters of what a client calls itself that are kept: it stands in every line of its stream's log."""

_GATEWAY = re.compile(r"[!-.0-~]{1,63}/[!-.0-~]{1,253}")


class Consent(StrEnum):
    """How many of a gateway's connected Envoys have acknowledged a version."""

    ALL = "all"
    SOME = "some"
    NONE = "none"
    NO_ENVOY = "no-envoy"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamInfo:
    """Who is at the other end of a stream."""

    id: int
    gateway: str
    node_id: str
    peer: str
    user_agent: str
    connected_since: datetime
    known: bool
    """Whether the gateway was published when the stream came."""
    variant: Variant = Variant.DELTA
    service: str = "ads"
    """The short name of the discovery service."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """One connected Envoy, for `/debug/nodes`."""

    stream: StreamInfo
    types: tuple[TypeView, ...]


class Observer(Protocol):
    """What the program wants to know: for metrics, logs and status. Called in the event loop; must not block."""

    def opened(self, stream: StreamInfo) -> None:
        """A stream said who it is."""

    def closed(self, stream: StreamInfo) -> None:
        """A stream that was opened is over."""

    def event(self, stream: StreamInfo, event: Event) -> None:
        """A client said something."""

    def sent(self, stream: StreamInfo, response: Response) -> None:
        """A response is about to be written."""

    def rejections(self, gateway: str, rejections: tuple[Rejection, ...]) -> None:
        """What Envoys refuse of what a gateway is to have; all of it, whenever it is something else than before."""

    def refused(self, peer: str, status: str, message: str) -> None:
        """A stream was ended for what the client did, or refused at its start."""


class _Stream:
    """A session with what wakes its writer. Everything happens in one event loop, so nothing is locked."""

    __slots__ = ("_wake", "info", "over", "session")

    session: Session

    def __init__(self, info: StreamInfo) -> None:
        self.info = info
        self.over: ProtocolError | bool = False
        """Whether the stream is to end: True for well, or the error to end it with."""
        self._wake = asyncio.Event()

    def wake(self) -> None:
        self._wake.set()

    def end(self, error: ProtocolError | None = None) -> None:
        self.over = self.over or error or True
        self._wake.set()

    async def changed(self, seconds: float | None) -> None:
        """Wait until something happened, at most so long."""
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()


class Server:
    """Serves scopes to Envoys by delta ADS.

    `publish` and `forget` never wait for a stream. An Envoy may connect before its gateway is published: it is
    answered when that happens, and keeps what it has until then. An empty answer would take its configuration away
    after a restart in which its service could not be read.

    Args:
        terms: what all sessions have in common.
        observer: is told what happens.
        clock: seconds, monotonic.
        now: the time of day, for people.
    """

    def __init__(
        self,
        terms: Terms,
        observer: Observer,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._terms = terms
        self._observer = observer
        self._clock = clock
        self._now = now
        self._gateways: dict[str, Gateway] = {}
        self._streams: dict[str, dict[int, _Stream]] = {}
        self._ids = itertools.count(1)
        self._closed: str | None = _UNREADY
        self._grpc: grpc.aio.Server | None = None

    # -- Life --------------------------------------------------------------------------------------------------

    async def start(self, address: str) -> int:
        """Listen at HOST:PORT; the port that was taken (for port 0).

        Raises:
            OSError: the address cannot be listened at.
        """
        server = grpc.aio.server(options=OPTIONS)
        handler = grpc.stream_stream_rpc_method_handler(self._delta)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
        try:
            port: int = server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"cannot listen at {address}: {error}") from error
        await server.start()
        self._grpc = server
        return port

    def open(self) -> None:
        """Accept streams: what is published is complete. Until then an Envoy is told to come again.

        A server that answered before it knew everything would empty the Envoys that reconnect to it.
        """
        self._closed = None

    async def stop(self, grace: float) -> None:
        """Accept nothing new, end the streams, and cut those still there after `grace` seconds."""
        self._closed = _STOPPING
        for streams in self._streams.values():
            for stream in streams.values():
                stream.end(ProtocolError("UNAVAILABLE", _STOPPING))
        if self._grpc is not None:
            await self._grpc.stop(grace)

    # -- What is served ----------------------------------------------------------------------------------------

    def publish(
        self, gateway: str, put: Iterable[Resource], remove: Iterable[tuple[ResourceType, str]] = ()
    ) -> Changes:
        """Change what a gateway is to have, and wake its streams; say what really changed."""
        target = self._gateway(gateway)
        rejections = target.rejections()
        changes = target.publish(put, remove)
        self._told(target, rejections)
        return changes

    def _told(self, gateway: Gateway, before: tuple[Rejection, ...]) -> None:
        """Tell the observer if Envoys refuse something else of the gateway than before."""
        if (now := gateway.rejections()) != before:
            self._observer.rejections(gateway.scope.name, now)

    def forget(self, gateway: str) -> None:
        """A gateway is gone: its Envoys lose everything, and its scope goes with the last of them."""
        if known := self._gateways.get(gateway):
            known.forget()
            self._release(known)

    def scope(self, gateway: str) -> Scope | None:
        """What a gateway is to have, to be read only."""
        known = self._gateways.get(gateway)
        return known.scope if known else None

    def _gateway(self, name: str) -> Gateway:
        if name not in self._gateways:
            self._gateways[name] = Gateway(name, self._terms)
        return self._gateways[name]

    def _release(self, gateway: Gateway) -> None:
        """Keep no empty gateway that nobody is connected to: clients choose the names."""
        if not gateway.connected and not len(gateway.scope):
            self._gateways.pop(gateway.scope.name, None)

    # -- Questions ---------------------------------------------------------------------------------------------

    def nodes(self) -> list[NodeView]:
        """All connected Envoys."""
        return list(self.views())

    def views(self) -> Iterator[NodeView]:
        """All Envoys that are connected now, each looked at in its turn: there may be many, with many names each."""
        streams = [stream for streams in self._streams.values() for stream in streams.values()]
        return (NodeView(stream=stream.info, types=tuple(stream.session.view())) for stream in streams)

    def rejections(self, gateway: str) -> tuple[Rejection, ...]:
        """What Envoys refuse of what a gateway is to have."""
        known = self._gateways.get(gateway)
        return known.rejections() if known else ()

    def connected(self, gateway: str) -> int:
        """How many Envoys of the gateway are connected."""
        known = self._gateways.get(gateway)
        return known.connected if known else 0

    def acknowledged(self, gateway: str, type_: ResourceType, name: str, version: str) -> Consent:
        """How many of the gateway's connected Envoys say that they have this version of the resource."""
        known = self._gateways.get(gateway)
        speakers = [session for session in known.sessions if type_ in session.types] if known else []
        if not speakers:
            return Consent.NO_ENVOY
        said = {session.acknowledged(type_, name) == version for session in speakers}
        if said == {True, False}:
            return Consent.SOME
        return Consent.ALL if said == {True} else Consent.NONE

    # -- Streams -----------------------------------------------------------------------------------------------

    async def _delta(self, _requests: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        """One stream: this task writes, a second one reads; flow control of one never stops the other."""
        try:
            request = await self._first(context)
            if request is not None:
                await self._serve(request, context)
        except ProtocolError as error:
            self._observer.refused(context.peer(), error.status, error.message)
            await context.abort(grpc.StatusCode[error.status], error.message)

    async def _first(self, context: grpc.aio.ServicerContext[bytes, bytes]) -> DeltaDiscoveryRequest | None:
        if self._closed:
            raise ProtocolError("UNAVAILABLE", self._closed)
        data = await context.read()
        return None if data is grpc.aio.EOF else _decode(data)

    async def _serve(self, request: DeltaDiscoveryRequest, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        gateway = self._gateway(_gateway_of(request.node))
        stream = self._stream(gateway, request.node or Node(), context.peer())
        streams = self._streams.setdefault(gateway.scope.name, {})
        streams[stream.info.id] = stream
        try:
            self._observer.opened(stream.info)
            self._receive(stream, gateway, request)
            async with asyncio.TaskGroup() as tasks:
                reader = tasks.create_task(self._read(stream, gateway, context))
                await self._write(stream, gateway, context)
                reader.cancel()
            if isinstance(stream.over, ProtocolError):
                raise stream.over
        finally:
            del streams[stream.info.id]
            if not streams:
                del self._streams[gateway.scope.name]
            gateway.leave(stream.info.id, lost=not stream.over or stream.over is True)
            self._release(gateway)
            self._observer.closed(stream.info)

    def _stream(self, gateway: Gateway, node: Node, peer: str) -> _Stream:
        info = StreamInfo(
            id=next(self._ids),
            gateway=gateway.scope.name,
            node_id=node.id[:LONGEST_ID],
            peer=peer,
            user_agent=_user_agent(node),
            connected_since=self._now(),
            known=gateway.published,
        )
        stream = _Stream(info)
        stream.session = gateway.connect(info.id, node_id=info.node_id, wake=stream.wake, prefix=f"{info.id:x}-")
        return stream

    async def _read(self, stream: _Stream, gateway: Gateway, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        """Take requests until the client is done or wrong; either ends the stream."""
        try:
            while (data := await context.read()) is not grpc.aio.EOF:
                self._receive(stream, gateway, _decode(data))
            stream.end()
        except ProtocolError as error:
            stream.end(error)

    def _receive(self, stream: _Stream, gateway: Gateway, request: DeltaDiscoveryRequest) -> None:
        rejections = gateway.rejections()
        for event in gateway.receive(stream.info.id, request, self._clock()):
            self._observer.event(stream.info, event)
        self._told(gateway, rejections)

    async def _write(self, stream: _Stream, gateway: Gateway, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        """Send what is to be sent; one response at a time, so that a slow client gets the last version only."""
        while not stream.over:
            if not gateway.published:
                await stream.changed(None)
                continue
            for event in stream.session.overdue(self._clock()):
                self._observer.event(stream.info, event)
            response = stream.session.next(self._clock())
            if response is not None:
                self._observer.sent(stream.info, response)
                await context.write(response.frame)
                continue
            wake_at = stream.session.wake_at()
            await stream.changed(None if wake_at is None else max(0.0, wake_at - self._clock()))


def _decode(data: bytes) -> DeltaDiscoveryRequest:
    try:
        return decode(DeltaDiscoveryRequest, data)
    except DecodeError as error:
        raise ProtocolError("INVALID_ARGUMENT", f"not a DeltaDiscoveryRequest: {error}") from error


def _user_agent(node: Node) -> str:
    """Name and version; an Envoy says its version in numbers, other clients as text."""
    build = node.user_agent_build_version and node.user_agent_build_version.version
    version = f"{build.major_number}.{build.minor_number}.{build.patch}" if build else node.user_agent_version
    return f"{node.user_agent_name} {version or ''}".strip()


def _gateway_of(node: Node | None) -> str:
    """The gateway that a node says it belongs to: `<namespace>/<name>`."""
    cluster = node.cluster if node else ""
    if not _GATEWAY.fullmatch(cluster):
        shown = cluster if len(cluster) <= LONGEST_ID else cluster[:LONGEST_ID] + "..."
        raise ProtocolError("INVALID_ARGUMENT", f"node.cluster is {shown!r}; wanted: <namespace>/<name>")
    return cluster
