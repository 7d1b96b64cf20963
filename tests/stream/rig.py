"""A server and clients over real gRPC on loopback."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import grpc
import grpc.aio

from tests.support.streams import DELTA_ADS
from tests.support.wait import wait_until as until
from xds.api.envoy.config.core.v3 import Node
from xds.api.envoy.service.discovery.v3 import DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest
from xds.api.google.rpc import Status
from xds.server import Server
from xds.types import ResourceType
from xds.wire import decode, encode

DEADLINE = 20.0
"""Seconds within which anything awaited in these tests must happen; nothing waits that long when all is well."""
GATEWAY = "models/iris"


@dataclass
class Record:
    """An observer that counts."""

    streams: list = field(default_factory=list)
    gone: list = field(default_factory=list)
    events: list = field(default_factory=list)
    responses: list = field(default_factory=list)
    refusals: Counter = field(default_factory=Counter)
    words: list = field(default_factory=list)
    rejected: dict = field(default_factory=dict)

    def opened(self, stream):
        self.streams.append(stream)

    def closed(self, stream):
        self.gone.append(stream)

    def event(self, stream, event):
        self.events.append((stream, event))

    def sent(self, stream, response):
        self.responses.append((stream, response))

    def rejections(self, gateway, rejections):
        self.rejected[gateway] = rejections

    def refused(self, peer, status, message):
        self.refusals[status] += 1
        self.words.append(message)


class Client:
    """One stream, by hand."""

    def __init__(self, channel, path=DELTA_ADS, *, metadata=()):
        self.call = channel.stream_stream(path)(metadata=metadata)

    async def say(self, type_, subscribe=(), *, gateway=None, nonce="", initial=None, node_id="envoy", error=None):
        await self.raw(
            encode(
                DeltaDiscoveryRequest(
                    node=Node(id=node_id, cluster=gateway, user_agent_name="test", user_agent_version="1")
                    if gateway is not None
                    else None,
                    type_url=type_,
                    resource_names_subscribe=list(subscribe),
                    response_nonce=nonce,
                    initial_resource_versions=dict(initial or {}),
                    error_detail=None if error is None else Status(code=13, message=error),
                )
            )
        )

    async def raw(self, data):
        async with asyncio.timeout(DEADLINE):
            await self.call.write(data)

    async def get(self):
        return await self.got(DeltaDiscoveryResponse)

    async def sotw(self, type_, names=(), *, gateway=None, nonce="", version="", node_id="envoy"):
        """A request of the state of the world."""
        node = Node(id=node_id, cluster=gateway) if gateway is not None else None
        await self.raw(
            encode(
                DiscoveryRequest(
                    node=node,
                    type_url=type_,
                    resource_names=list(names),
                    response_nonce=nonce,
                    version_info=version,
                )
            )
        )

    async def got(self, kind):
        """A response of that kind."""
        async with asyncio.timeout(DEADLINE):
            data = await self.call.read()
        assert data is not grpc.aio.EOF, "the stream ended"
        return decode(kind, data)

    async def got_something(self):
        """Whether the stream goes on, and not for want of an answer."""
        async with asyncio.timeout(DEADLINE):
            return await self.call.read() is not grpc.aio.EOF

    async def ack(self, response):
        await self.say(response.type_url, nonce=response.nonce)

    async def take(self, type_, subscribe=(), *, gateway=None):
        """Ask, and acknowledge the one answer."""
        await self.say(type_, subscribe, gateway=gateway)
        response = await self.get()
        await self.ack(response)
        return {entry.name: entry.version for entry in response.resources}

    async def end(self):
        """How the stream ends: gRPC status and message."""
        try:
            async with asyncio.timeout(DEADLINE):
                while await self.call.read() is not grpc.aio.EOF:
                    pass
                return await self.call.code(), await self.call.details()
        except grpc.aio.AioRpcError as error:
            return error.code(), error.details()


@dataclass
class Rig:
    server: Server
    record: Record
    port: int
    channels: list = field(default_factory=list)

    @property
    def arriving(self):
        """How many calls there are that report loads, or have not said yet what they want."""
        return len(self.server._calls) - len(self.server._streams)

    def channel(self, *, options=(), host="127.0.0.1"):
        """A connection of its own."""
        options = (("grpc.use_local_subchannel_pool", 1), *options)
        channel = grpc.aio.insecure_channel(f"{host}:{self.port}", options=options)
        self.channels.append(channel)
        return channel

    def secure(self, authority, pair, path=DELTA_ADS):
        """A client with a certificate."""
        credentials = grpc.ssl_channel_credentials(authority.certificate, pair.key, pair.certificate)
        options = (("grpc.use_local_subchannel_pool", 1),)
        channel = grpc.aio.secure_channel(f"localhost:{self.port}", credentials, options=options)
        self.channels.append(channel)
        return Client(channel, path)

    def client(self, path=DELTA_ADS, *, metadata=()):
        return Client(self.channel(), path, metadata=metadata)

    async def connected(self, gateway=GATEWAY):
        """A client that has acknowledged its clusters."""
        client = self.client()
        await client.take(ResourceType.CLUSTER, gateway=gateway)
        await until(lambda: all(not view.in_flight for node in self.server.nodes() for view in node.types))
        return client
