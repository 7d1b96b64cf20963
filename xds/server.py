"""The xDS server: listens, keeps the gateways, serves their streams, lets them go. Owns the tasks; reads the clock."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from random import SystemRandom

import grpc
import grpc.aio

from xds.api.envoy.config.core.v3 import Node
from xds.call import Call, Ended, Limits
from xds.entrance import Entrance
from xds.gateway import Gateway
from xds.hangup import Cutter
from xds.identity import Authenticator
from xds.loads import Loads, LoadSession, node_of
from xds.memory import Memory, Rejection
from xds.observer import NodeView, Observer, StreamInfo
from xds.scope import Changes, Scope
from xds.services import SERVICES, Discovery, LoadReporting, Method
from xds.session import ProtocolError, Terms
from xds.streams import LONGEST_TEXT, Desk, Pace, Stream, decoded, take_reports, taken, user_agent
from xds.types import ResourceType
from xds.wire import DecodeError, Resource

__all__ = ["OPTIONS", "Consent", "Limits", "NodeView", "Observer", "Server", "StreamInfo"]

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

DRAIN_RATE = 50
"""Streams a second that end, while there is time, when the server stops: other servers take them over."""

LOAD_INTERVAL = 10.0
"""Seconds between two load reports of an Envoy."""

_STOPPING = "this server is going down"
_FAULT = "internal error"
_END_SECONDS = 1.0
_random = SystemRandom()
logger = logging.getLogger(__name__)


class Consent(StrEnum):
    """How many of a gateway's connected Envoys have acknowledged a version."""

    ALL = "all"
    SOME = "some"
    NONE = "none"
    NO_ENVOY = "no-envoy"


class Server:
    """Serves scopes to Envoys, by every method of `xds.services`.

    `publish` and `forget` never wait for a stream. An Envoy may connect before its gateway is published: it is
    answered when that happens, and keeps what it has until then. An empty answer would take its configuration away
    after a restart in which its service could not be read.

    Args:
        terms: what all sessions have in common.
        observer: is told what happens.
        authenticator: tells who peers are; None lets everybody ask for every gateway.
        limits: what clients may take.
        load_interval: seconds between two load reports of an Envoy.
        clock: seconds, monotonic.
        now: the time of day, for people.
    """

    def __init__(  # noqa: PLR0913 - what a server is made of
        self,
        terms: Terms,
        observer: Observer,
        *,
        authenticator: Authenticator | None = None,
        limits: Limits | None = None,
        load_interval: float = LOAD_INTERVAL,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._terms = terms
        self._observer = observer
        self._limits = limits or Limits()
        self._load_interval = load_interval
        self._clock = clock
        self._now = now
        self._entrance = Entrance(authenticator, self._limits, clock)
        self._desk = Desk(observer=observer, clock=clock, said=self._said)
        self._gateways: dict[str, Gateway] = {}
        self._restored: set[str] = set()
        self._changed: set[str] = set()
        self._calls: set[Call] = set()
        self._streams: dict[int, Stream] = {}
        self._ids = itertools.count(1)
        self._cutter = Cutter()
        self._grpc: grpc.aio.Server | None = None
        self._stopping = False
        self.loads = Loads(self._knows)
        """What Envoys report of their requests."""

    # -- Life --------------------------------------------------------------------------------------------------

    async def start(self, address: str, credentials: grpc.ServerCredentials | None = None) -> int:
        """Listen at HOST:PORT, in plain text without credentials; the port that was taken (for port 0).

        Raises:
            OSError: the address cannot be listened at.
        """
        server = grpc.aio.server(options=[*OPTIONS, *self._connection_options()])
        server.add_generic_rpc_handlers([self._handlers(name, methods) for name, methods in SERVICES.items()])
        try:
            port: int = (
                server.add_insecure_port(address)
                if credentials is None
                else server.add_secure_port(address, credentials)
            )
        except RuntimeError as error:
            raise OSError(f"cannot listen at {address}: {error}") from error
        await server.start()
        self._grpc = server
        return port

    def _connection_options(self) -> Iterator[tuple[str, int]]:
        """How long gRPC bears with connections.

        After its age, a tenth more or less, the client is told to make a new one for new streams. Streams on the old
        one end later, by `_until`: gRPC would cut them, as a client does that is lost.
        """
        yield "grpc.server_handshake_timeout_ms", round(self._limits.handshake * 1000)
        yield "grpc.max_connection_idle_ms", round(self._limits.idle * 1000)
        if self._limits.connection_age:
            yield "grpc.max_connection_age_ms", round(self._limits.connection_age * 1000)

    def _handlers(self, service: str, methods: Mapping[str, Method]) -> grpc.GenericRpcHandler:
        handlers = {
            name: grpc.stream_stream_rpc_method_handler(partial(self._handle, method))
            for name, method in methods.items()
        }
        return grpc.method_handlers_generic_handler(service, handlers)

    def open(self) -> None:
        """Accept streams: what is published is complete. Until then an Envoy is told to come again.

        A server that answered before it knew everything would empty the Envoys that reconnect to it.
        """
        self._entrance.closed = None

    async def stop(self, drain_seconds: float) -> None:
        """Accept nothing new, end the streams one by one, and cut those still there after `drain_seconds`.

        Streams end at random moments, for other servers take them over: within nine tenths of the time, and sooner
        where there are few (`DRAIN_RATE`).
        """
        self._stopping = True
        self._entrance.closed = _STOPPING
        calls = list(self._calls)
        loop = asyncio.get_running_loop()
        spread = min(0.9 * drain_seconds, len(calls) / DRAIN_RATE)
        for call in calls:
            loop.call_later(_random.uniform(0, spread), call.end, Ended(_STOPPING))
        if self._grpc is not None:
            await self._grpc.stop(drain_seconds)
        if tasks := [call.task for call in self._calls if call.task]:
            await asyncio.wait(tasks, timeout=_END_SECONDS)

    # -- What is served ----------------------------------------------------------------------------------------

    def restore(self, gateway: str, memories: Iterable[Memory]) -> None:
        """Remember again what an earlier server knew of a gateway. To be called before the gateway is published.

        Raises:
            ValueError: it has been published.
        """
        target = self._gateway(gateway)
        if target.published:
            raise ValueError(f"gateway {gateway} has been published already")
        target.scope.restore(memories)
        self._restored.add(gateway)

    def publish(
        self, gateway: str, put: Iterable[Resource], remove: Iterable[tuple[ResourceType, str]] = ()
    ) -> Changes:
        """Change what a gateway is to have, and wake its streams; say what is now served otherwise."""
        target = self._gateway(gateway)
        self._restored.discard(gateway)
        with self._watched(target):
            return target.publish(put, remove)

    def retains(self, gateway: str, cluster: str) -> bool:
        """Whether a cluster that is not wanted any more may be needed again, should Envoys refuse what is."""
        known = self._gateways.get(gateway)
        return known is not None and known.scope.retains(cluster)

    def refresh(self, gateway: str, assignment: Resource) -> None:
        """The endpoints of a retained cluster are others now."""
        if known := self._gateways.get(gateway):
            with self._watched(known):
                known.refresh(assignment)

    def forget(self, gateway: str) -> None:
        """A gateway is gone: its Envoys lose everything, and its scope goes with the last of them."""
        self._restored.discard(gateway)
        self.loads.forget(gateway)
        if known := self._gateways.get(gateway):
            with self._watched(known):
                known.forget()
            self._release(known)

    def retry(self, gateway: str) -> int:
        """Try again what Envoys of a gateway refused, for what was at fault may be mended; how much that was."""
        known = self._gateways.get(gateway)
        if known is None:
            return 0
        with self._watched(known):
            return known.retry()

    def scope(self, gateway: str) -> Scope | None:
        """What a gateway is to have, to be read only."""
        known = self._gateways.get(gateway)
        return known.scope if known else None

    def changed_scopes(self) -> dict[str, Scope | None]:
        """The gateways of which something was published or said since this was asked last; None for one that is gone.

        For what remembers them.
        """
        changed, self._changed = self._changed, set()
        return {name: self.scope(name) for name in changed}

    @contextmanager
    def _watched(self, gateway: Gateway) -> Iterator[None]:
        rejections = gateway.rejections()
        yield
        self._said(gateway, rejections)

    def _said(self, gateway: Gateway, before: tuple[Rejection, ...]) -> None:
        """Tell the observer if Envoys refuse something else of the gateway than before."""
        if gateway.published:
            self._changed.add(gateway.scope.name)
        if (now := gateway.rejections()) != before:
            self._observer.rejections(gateway.scope.name, now)

    def _gateway(self, name: str) -> Gateway:
        if name not in self._gateways:
            self._gateways[name] = Gateway(name, self._terms)
        return self._gateways[name]

    def _release(self, gateway: Gateway) -> None:
        """Keep no empty gateway that nobody is connected to: clients choose the names."""
        name = gateway.scope.name
        if gateway.deserted and not len(gateway.scope) and name not in self._restored:
            self._gateways.pop(name, None)

    def _knows(self, gateway: str, cluster: str) -> bool:
        scope = self.scope(gateway)
        return scope is not None and scope.get(ResourceType.CLUSTER, cluster) is not None

    # -- Questions ---------------------------------------------------------------------------------------------

    def nodes(self) -> list[NodeView]:
        """All connected Envoys."""
        return list(self.views())

    def views(self) -> Iterator[NodeView]:
        """All Envoys that are connected now, each looked at in its turn: there may be many, with many names each."""
        streams = list(self._streams.values())
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
        said = set(known.consent(type_, name, version)) if known else set()
        if not said:
            return Consent.NO_ENVOY
        if said == {True, False}:
            return Consent.SOME
        return Consent.ALL if said == {True} else Consent.NONE

    # -- Streams -----------------------------------------------------------------------------------------------

    async def _handle(self, method: Method, _requests: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        """One call, from its first word to its status."""
        call = Call(context, self._limits, self._cutter)
        self._calls.add(call)
        pace = Pace(self._clock)
        try:
            await self._serve(method, call, pace)
        except ProtocolError as error:
            pace.done()
            self._observer.refused(call.peer, error.status, error.message)
            await asyncio.sleep(pace.rest)
            await call.close(error.status, error.message)
        except Ended as ended:
            await call.close(ended.status, ended.message)
        except Exception:
            # Our fault: it ends this stream alone, and only the log learns what it is.
            logger.exception("a stream of %s failed", call.peer)
            self._observer.refused(call.peer, "INTERNAL", _FAULT)
            await call.close("INTERNAL", _FAULT)
        finally:
            call.finish()
            self._calls.discard(call)

    async def _serve(self, method: Method, call: Call, pace: Pace) -> None:
        gateway_of = await self._entrance.admit(call, reports=isinstance(method, LoadReporting))
        if isinstance(method, LoadReporting):
            await self._report(call, gateway_of, pace)
        elif stream := self._stream(method, call, gateway_of, pace, await call.first()):
            await self._discover(call, stream)

    def _stream(
        self, method: Discovery, call: Call, gateway_of: Callable[[Node | None], str], pace: Pace, first: bytes | None
    ) -> Stream | None:
        """The stream that a first message asks for; none without one.

        Not awaited: a coroutine would hold the message, which may be of 32 MiB, for as long as the stream lasts.
        """
        if first is None:
            return None
        pace.begin()
        request = decoded(method.request, first)
        gateway = self._gateway(gateway_of(request.node))
        info = self._info(method, call, gateway, request.node or Node())
        age = self._age()
        until = None if age is None else self._clock() + age
        return Stream(info, method, call=call, gateway=gateway, desk=self._desk, until=until, first=request, pace=pace)

    async def _discover(self, call: Call, stream: Stream) -> None:
        info, gateway = stream.info, stream.gateway
        self._streams[info.id] = stream
        try:
            self._observer.opened(info)
            await stream.run()
        except asyncio.CancelledError:
            call.left = True
            raise
        finally:
            del self._streams[info.id]
            with self._watched(gateway):
                gateway.leave(info.id, lost=call.left and not self._stopping)
            self._release(gateway)
            self._observer.closed(info)

    async def _report(self, call: Call, gateway_of: Callable[[Node | None], str], pace: Pace) -> None:
        first = await call.first()
        if first is None:
            return
        pace.begin()
        try:
            gateway = gateway_of(node_of(first))
        except DecodeError as error:
            raise ProtocolError("INVALID_ARGUMENT", f"not a LoadStatsRequest: {error}") from error
        session = LoadSession(gateway, self.loads, interval_seconds=self._load_interval)
        try:
            reply = taken(session, first)
            pace.done()
            del first
            await take_reports(call, session, reply, self._age(), pace)
        finally:
            session.close()

    def _age(self) -> float | None:
        """How long a new stream is to last: until its connection is surely too old for another one."""
        age = self._limits.connection_age
        return _random.uniform(1.1, 1.2) * age if age else None

    def _info(self, method: Discovery, call: Call, gateway: Gateway, node: Node) -> StreamInfo:
        return StreamInfo(
            id=next(self._ids),
            gateway=gateway.scope.name,
            node_id=node.id[:LONGEST_TEXT],
            peer=call.peer,
            user_agent=user_agent(node),
            connected_since=self._now(),
            known=gateway.published,
            service=method.service,
            variant=method.variant,
        )
