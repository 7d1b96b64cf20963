"""A server and clients over real gRPC on loopback."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import grpc
import grpc.aio

from tests.support.wait import wait_until as until
from xds.api.envoy.config.core.v3 import Node
from xds.api.envoy.service.discovery.v3 import DeltaDiscoveryRequest, DeltaDiscoveryResponse
from xds.server import Server
from xds.services import DELTA_ADS
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


class Client:
    """One stream, by hand."""

    def __init__(self, channel):
        self.call = channel.stream_stream(DELTA_ADS)()

    async def say(self, type_, subscribe=(), *, gateway=None, nonce="", initial=None, node_id="envoy"):
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
                )
            )
        )

    async def raw(self, data):
        async with asyncio.timeout(DEADLINE):
            await self.call.write(data)

    async def get(self):
        async with asyncio.timeout(DEADLINE):
            data = await self.call.read()
        assert data is not grpc.aio.EOF, "the stream ended"
        return decode(DeltaDiscoveryResponse, data)

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

    def channel(self, *, options=()):
        """A connection of its own."""
        options = (("grpc.use_local_subchannel_pool", 1), *options)
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{self.port}", options=options)
        self.channels.append(channel)
        return channel

    def client(self):
        return Client(self.channel())

    async def connected(self, gateway=GATEWAY):
        """A client that has acknowledged its clusters."""
        client = self.client()
        await client.take(ResourceType.CLUSTER, gateway=gateway)
        await until(lambda: all(not view.in_flight for node in self.server.nodes() for view in node.types))
        return client
