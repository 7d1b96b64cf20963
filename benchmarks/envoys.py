"""Models of Envoys: they ask for all four types and acknowledge; in this process or, many at once, in another."""

from __future__ import annotations

import asyncio
import json
import resource as limits
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from enum import StrEnum

import grpc.aio

from tests.support.streams import DELTA_ADS, STREAM_ADS
from xds.api.envoy.config.cluster.v3 import Cluster
from xds.api.envoy.config.core.v3 import Node
from xds.api.envoy.service.discovery.v3 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
)
from xds.api.google.rpc import Status
from xds.session import Variant
from xds.types import ResourceType
from xds.wire import decode, encode

METHODS = {Variant.DELTA: DELTA_ADS, Variant.SOTW: STREAM_ADS}
_OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
_FOLLOWS = {ResourceType.CLUSTER: ResourceType.ENDPOINT, ResourceType.LISTENER: ResourceType.ROUTE}


class Manner(StrEnum):
    """How a client behaves."""

    GOOD = "good"
    REFUSES = "refuses"
    """Acknowledges the first response of a type and refuses all that come after."""
    MUTE = "mute"
    """Never reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """Some Envoys.

    Args:
        port: of the server.
        gateway: that they belong to; `{}` in it stands for the number of the Envoy.
        count: how many, numbered from `first`.
        variant: how they speak.
        manner: how they behave.
        shared: streams of one connection.
        at_once: streams that a process opens at the same time, each until its first answer.
    """

    port: int
    gateway: str
    count: int = 1
    first: int = 0
    variant: str = Variant.DELTA
    manner: str = Manner.GOOD
    shared: int = 1
    at_once: int = 100_000


class Model:
    """One Envoy, over all the streams that it has had."""

    def __init__(self, crowd: Crowd, number: int) -> None:
        self._variant = Variant(crowd.variant)
        self._manner = Manner(crowd.manner)
        self._node = Node(id=f"model-{number}", cluster=crowd.gateway.format(number))
        self._names: dict[ResourceType, list[str]] = {ResourceType.CLUSTER: [], ResourceType.LISTENER: []}
        self._versions: dict[ResourceType, dict[str, str]] = {type_: {} for type_ in ResourceType}

    async def live(self, channel: grpc.aio.Channel, turn: asyncio.Semaphore) -> None:
        """Have one stream, for as long as it lasts."""
        async with turn:
            stream = channel.stream_stream(METHODS[self._variant])()
            for request in self._first():
                await stream.write(encode(request))
            if self._manner is Manner.MUTE:
                await asyncio.Event().wait()
            data = await stream.read()
        while data is not grpc.aio.EOF:
            for request in self._answers(data):
                await stream.write(encode(request))
            data = await stream.read()

    def _first(self) -> Iterator[DeltaDiscoveryRequest | DiscoveryRequest]:
        node: Node | None = self._node
        for type_, names in self._names.items():
            if self._variant is Variant.DELTA:
                yield DeltaDiscoveryRequest(
                    node=node,
                    type_url=type_,
                    resource_names_subscribe=names,
                    initial_resource_versions=self._versions[type_],
                )
            else:
                yield DiscoveryRequest(node=node, type_url=type_, resource_names=names)
            node = None

    def _answers(self, data: bytes) -> Iterator[DeltaDiscoveryRequest | DiscoveryRequest]:
        if self._variant is Variant.DELTA:
            yield from self._answers_delta(decode(DeltaDiscoveryResponse, data))
        else:
            yield from self._answers_sotw(decode(DiscoveryResponse, data))

    def _answers_delta(self, response: DeltaDiscoveryResponse) -> Iterator[DeltaDiscoveryRequest]:
        type_ = ResourceType(response.type_url)
        error = self._error(type_)
        yield DeltaDiscoveryRequest(type_url=type_, response_nonce=response.nonce, error_detail=error)
        if not error:
            self._versions[type_].update((entry.name, entry.version) for entry in response.resources)
        if new := self._follow(type_, [entry.name for entry in response.resources]):
            yield DeltaDiscoveryRequest(type_url=_FOLLOWS[type_], resource_names_subscribe=new)

    def _answers_sotw(self, response: DiscoveryResponse) -> Iterator[DiscoveryRequest]:
        type_ = ResourceType(response.type_url)
        error = self._error(type_)
        yield DiscoveryRequest(
            type_url=type_,
            response_nonce=response.nonce,
            error_detail=error,
            resource_names=self._names[type_],
        )
        if not error:
            self._versions[type_][""] = response.version_info
        clusters = response.resources if type_ is ResourceType.CLUSTER else []
        if self._follow(type_, [decode(Cluster, packed.value).name for packed in clusters]):
            follows = _FOLLOWS[type_]
            yield DiscoveryRequest(type_url=follows, resource_names=self._names[follows])

    def _error(self, type_: ResourceType) -> Status | None:
        refuses = self._manner is Manner.REFUSES and self._versions[type_]
        return Status(code=13, message="this will not do") if refuses else None

    def _follow(self, type_: ResourceType, given: list[str]) -> list[str]:
        """Names of the type that follows this one which were not asked for yet."""
        follows = _FOLLOWS.get(type_)
        if follows is None:
            return []
        # The one route configuration has the gateway's name.
        wanted = [self._node.cluster] if follows is ResourceType.ROUTE else given
        asked = self._names.setdefault(follows, [])
        new = [name for name in wanted if name not in asked]
        asked += new
        return new


async def play(crowd: Crowd, models: list[Model] | None = None) -> None:
    """Be these Envoys until cancelled."""
    models = models or models_of(crowd)
    turn = asyncio.Semaphore(crowd.at_once)
    async with asyncio.TaskGroup() as tasks:
        for at in range(0, len(models), crowd.shared):
            tasks.create_task(_connection(crowd.port, models[at : at + crowd.shared], turn))


def models_of(crowd: Crowd) -> list[Model]:
    """The Envoys of a crowd, before their first stream."""
    return [Model(crowd, number) for number in range(crowd.first, crowd.first + crowd.count)]


async def _connection(port: int, models: list[Model], turn: asyncio.Semaphore) -> None:
    async with (
        grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=_OPTIONS) as channel,
        asyncio.TaskGroup() as tasks,
    ):
        for model in models:
            tasks.create_task(model.live(channel, turn))


# -- A process of their own ------------------------------------------------------------------------------------------


class Child:
    """A process that plays a crowd."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def again(self) -> None:
        """Let all lose their connections, and connect once more with what they have."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"again\n")
        await self._process.stdin.drain()


@asynccontextmanager
async def crowd(of: Crowd, processes: int = 1) -> AsyncIterator[list[Child]]:
    """Let children play a crowd, each its part. Leaving kills them; their streams end some time after."""
    part = of.count // processes
    parts = [replace(of, count=part, first=of.first + part * number) for number in range(processes)]
    children = [await _start(each) for each in parts]
    try:
        yield [Child(child) for child in children]
    finally:
        for child in children:
            child.kill()
            await child.wait()


async def _start(part: Crowd) -> asyncio.subprocess.Process:
    command = [sys.executable, "-m", "benchmarks.envoys", json.dumps(asdict(part))]
    return await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE)


def open_files() -> None:
    """Allow as many connections as this process may have at all."""
    _, most = limits.getrlimit(limits.RLIMIT_NOFILE)
    limits.setrlimit(limits.RLIMIT_NOFILE, (most, most))


async def _main(part: Crowd) -> None:
    models = models_of(part)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while True:
        playing = asyncio.create_task(play(part, models))
        if not await reader.readline():
            return
        playing.cancel()
        await asyncio.wait([playing])


if __name__ == "__main__":
    open_files()
    asyncio.run(_main(Crowd(**json.loads(sys.argv[1]))))
