"""A control plane in this process: pipeline and server, and the acknowledgements that come in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from benchmarks import fleet
from translator.planners.options import Options
from xds.server import Limits, Server, StreamInfo
from xds.session import Acknowledged, Event, Response, Terms
from xds.types import ResourceType
from xdserve.demo.waiting import until
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

    def __init__(self, acks: Acks | None = None, limits: Limits | None = None) -> None:
        self.acks = acks or Acks()
        self.server = Server(Terms(identifier="benchmark", linger=1.0), self.acks, limits=limits)
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

    async def streams(self, count: int) -> None:
        """Wait until so many streams are open."""

        async def as_many() -> bool:
            return self.acks.opened_streams == count

        await until(as_many, f"{count:,} streams instead of {self.acks.opened_streams:,}", DEADLINE)


@asynccontextmanager
async def serving(acks: Acks | None = None, limits: Limits | None = None) -> AsyncIterator[tuple[Plane, int]]:
    """A plane that listens, and its port."""
    plane = Plane(acks, limits)
    port = await plane.server.start("127.0.0.1:0")
    plane.server.open()
    try:
        yield plane, port
    finally:
        await plane.server.stop(0)
