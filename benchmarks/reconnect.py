"""A storm: all Envoys lose their connections at once, and come back with what they have. Nothing has changed."""

from __future__ import annotations

import asyncio
import time

from benchmarks import fleet
from benchmarks.envoys import Crowd, crowd, open_files
from benchmarks.measure import Figure
from benchmarks.plane import DEADLINE, Acks, serving
from xds.server import StreamInfo
from xds.session import Acknowledged, Event, Response
from xds.types import ResourceType

ENVOYS = 1_000
GATEWAY = f"{fleet.NAMESPACE}/iris-{{}}"


class Arrivals(Acks):
    """When each Envoy has acknowledged its first answer for listeners, and what was sent until then."""

    def __init__(self) -> None:
        super().__init__()
        self.reset()

    def reset(self) -> None:
        """Begin to measure."""
        self.moments: dict[str, float] = {}
        self.resources = 0
        self.bytes_of_resources = 0
        self.all_here: asyncio.Future[None] = asyncio.get_event_loop().create_future()

    def sent(self, _: StreamInfo, response: Response) -> None:
        self.resources += response.resources
        self.bytes_of_resources += len(response.frame) if response.resources else 0

    def event(self, stream: StreamInfo, event: Event) -> None:
        super().event(stream, event)
        if isinstance(event, Acknowledged) and event.type is ResourceType.LISTENER:
            self.moments.setdefault(stream.gateway, time.perf_counter())
            if len(self.moments) == ENVOYS and not self.all_here.done():
                self.all_here.set_result(None)


async def _run() -> list[Figure]:
    arrivals = Arrivals()
    async with serving(arrivals) as (plane, port):
        await plane.grow(ENVOYS)
        routed = arrivals.expect(ResourceType.ROUTE, ENVOYS)
        async with crowd(Crowd(port=port, gateway=GATEWAY, count=ENVOYS)) as [child]:
            await asyncio.wait_for(routed, DEADLINE)
            first = arrivals.bytes_of_resources
            arrivals.reset()
            start, spent = time.perf_counter(), time.process_time()
            await child.again()
            await asyncio.wait_for(arrivals.all_here, DEADLINE)
            spent = time.process_time() - spent
            await plane.streams(ENVOYS)
        await plane.streams(0)
    moments = sorted(moment - start for moment in arrivals.moments.values())
    note = "1,000 unchanged Envoys, from the loss of all connections; one process plays them"
    return [
        *(
            Figure(f"{share} % have their ACK", moments[ENVOYS * share // 100 - 1], "s", "", note)
            for share in (50, 99, 100)
        ),
        Figure("CPU of it", spent, "s CPU", "", "old streams ended, new ones served"),
        Figure("resources sent again", arrivals.resources, "", "0", "of 6,000"),
        Figure("bytes of them", arrivals.bytes_of_resources, "", "0", f"of {first / 1e6:.1f} MB at first"),
    ]


def figures() -> list[Figure]:
    """The lines of the table."""
    open_files()
    return asyncio.run(_run())
