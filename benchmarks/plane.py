"""A control plane in this process: pipeline and server, the acknowledgements that come in, a model of an Envoy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import grpc.aio

from benchmarks import fleet
from translator.planners.options import Options
from xds.api.envoy.config.core.v3 import Node
from xds.api.envoy.service.discovery.v3 import DeltaDiscoveryRequest, DeltaDiscoveryResponse
from xds.server import Server, StreamInfo
from xds.services import DELTA_ADS
from xds.session import Acknowledged, Event, Response, Terms
from xds.types import ResourceType
from xds.wire import decode, encode
from xdserve.offline import Scopes
from xdserve.pipeline import Pipeline
from xdserve.sources import Put

DEADLINE = 30.0


class Acks:
    """The server's observer: counts acknowledgements, and notes when the last one wanted came."""

    def __init__(self) -> None:
        self.opened_streams = 0
        self._wanted = 0
        self._type: ResourceType | None = None
        self._at: asyncio.Future[float] | None = None

    def expect(self, type_: ResourceType, count: int = 1) -> asyncio.Future[float]:
        """The moment (perf_counter) of this many acknowledgements of the type from now."""
        self._type, self._wanted = type_, count
        self._at = asyncio.get_running_loop().create_future()
        return self._at

    def opened(self, _: StreamInfo) -> None:
        self.opened_streams += 1

    def closed(self, _: StreamInfo) -> None:
        self.opened_streams -= 1

    def sent(self, _: StreamInfo, __: Response) -> None:
        """Not measured."""

    def rejections(self, _: str, __: object) -> None:
        """Nothing is refused."""

    def refused(self, peer: str, status: str, message: str) -> None:
        raise RuntimeError(f"{peer}: {status}: {message}")

    def event(self, _: StreamInfo, event: Event) -> None:
        if isinstance(event, Acknowledged) and event.type is self._type and self._at and not self._at.done():
            self._wanted -= 1
            if not self._wanted:
                self._at.set_result(time.perf_counter())


class Plane:
    """Pipeline and server."""

    def __init__(self) -> None:
        self.acks = Acks()
        self.server = Server(Terms(identifier="benchmark", linger=1.0), self.acks)
        self.pipeline = Pipeline(Options(), self.server, Scopes())
        self.held = 0

    def apply(self, puts: Iterable[Put]) -> None:
        """Take objects in and publish what they change."""
        self.pipeline.apply(list(puts))
        while self.pipeline.run():
            pass

    async def grow(self, count: int) -> None:
        """Hold so many services."""
        while self.held < count:
            step = min(50, count - self.held)
            self.apply(fleet.held(step, self.held))
            self.held += step
            await asyncio.sleep(0)


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[Plane, int]]:
    """A plane that listens, and its port."""
    plane = Plane()
    port = await plane.server.start("127.0.0.1:0")
    plane.server.open()
    try:
        yield plane, port
    finally:
        await plane.server.stop(0)


async def play(port: int, gateway: str, number: int = 0) -> None:
    """Be an Envoy of a gateway: subscribe to clusters and listeners, then to what they need, and acknowledge all."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        stream = channel.stream_stream(DELTA_ADS)()
        node = Node(id=f"model-{number}", cluster=gateway)
        await stream.write(encode(DeltaDiscoveryRequest(type_url=ResourceType.CLUSTER, node=node)))
        await stream.write(encode(DeltaDiscoveryRequest(type_url=ResourceType.LISTENER)))
        asked: set[str] = set()
        while (data := await stream.read()) is not grpc.aio.EOF:
            for request in _answers(decode(DeltaDiscoveryResponse, data), gateway, asked):
                await stream.write(encode(request))


def _answers(response: DeltaDiscoveryResponse, gateway: str, asked: set[str]) -> Iterable[DeltaDiscoveryRequest]:
    yield DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)
    follows = {ResourceType.CLUSTER: ResourceType.ENDPOINT, ResourceType.LISTENER: ResourceType.ROUTE}
    wanted = follows.get(ResourceType(response.type_url))
    if wanted is not None:
        # The one route configuration has the gateway's name.
        named = [gateway] if wanted is ResourceType.ROUTE else [entry.name for entry in response.resources]
        new = [name for name in named if f"{wanted} {name}" not in asked]
        asked.update(f"{wanted} {name}" for name in new)
        if new:
            yield DeltaDiscoveryRequest(type_url=wanted, resource_names_subscribe=new)
