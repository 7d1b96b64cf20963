"""A proxy between Envoys and their xDS server that holds back answers about chosen resources."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import grpc
import grpc.aio

from xds.api.envoy.service.discovery.v3 import DeltaDiscoveryResponse
from xds.types import ResourceType
from xds.wire import decode

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
METHOD = "DeltaAggregatedResources"


class EdsHold:
    """Passes all bytes on, but for answers that bring a resource which is held."""

    def __init__(self, upstream):
        self.port = 0
        self.held = asyncio.Event()
        """Set once an answer is being held back."""
        self._upstream = upstream
        self._resources = set()
        self._released = asyncio.Event()

    def hold(self, name, kind=ResourceType.ENDPOINT):
        self._resources.add((kind, name))
        self._released.clear()

    def release(self):
        self._resources.clear()
        self.held.clear()
        self._released.set()

    async def serve(self, requests, context):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self._upstream}") as channel:
            call = channel.stream_stream(f"/{SERVICE}/{METHOD}")(requests)
            waiting = set()
            async for data in call:
                if self._concerns(data):
                    waiting.add(asyncio.create_task(self._later(data, context)))
                else:
                    await context.write(data)

    async def _later(self, data, context):
        self.held.set()
        await self._released.wait()
        await context.write(data)

    def _concerns(self, data):
        response = decode(DeltaDiscoveryResponse, data)
        return any((response.type_url, resource.name) in self._resources for resource in response.resources)


@asynccontextmanager
async def eds_hold(upstream):
    """A running proxy in front of the server at the port `upstream`."""
    proxy = EdsHold(upstream)
    server = grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(proxy.serve)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
    proxy.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield proxy
    finally:
        proxy.release()
        await server.stop(None)
