"""What many streams cost the server: CPU of a push to each, memory of each. The clients are another process."""

from __future__ import annotations

import asyncio
import gc
import resource as limits
import sys
import time
from itertools import count

from benchmarks.measure import Figure, resident
from benchmarks.plane import DEADLINE, Plane, play, serving
from xds.types import ResourceType
from xds.wire import Resource, resource
from xdserve.demo.waiting import until

STREAMS = 1_000
PUSHES = 5
SIZES = (300, 2_000, 25_000)
GATEWAY = "models/shared"


_revisions = count(1)


def shared(size: int, type_: ResourceType = ResourceType.LISTENER) -> Resource:
    """A resource of about so many bytes that is unlike any before it. Nothing has to follow a listener."""
    return resource(type_, "shared", next(_revisions).to_bytes(4, "big") * (size // 4))


async def _push(plane: Plane, size: int, *types: ResourceType) -> float:
    """The least CPU seconds of one publication to all streams, their ACKs included.

    It is over when all have acknowledged the last of `types`, of which the first is published.
    """
    types = types or (ResourceType.LISTENER,)
    best = float("inf")
    for _ in range(PUSHES):
        made = shared(size, types[0])
        acknowledged = plane.acks.expect(types[-1], STREAMS)
        start = time.process_time()
        plane.server.publish(GATEWAY, [made])
        await asyncio.wait_for(acknowledged, DEADLINE)
        best = min(best, time.process_time() - start)
    return best


async def _run() -> list[Figure]:
    async with serving() as (plane, port):
        plane.server.publish(GATEWAY, [shared(SIZES[0])])
        before = resident()
        clients = await asyncio.create_subprocess_exec(sys.executable, "-m", "benchmarks.streams", str(port))
        try:

            async def all_here() -> bool:
                return plane.acks.opened_streams == STREAMS

            await until(all_here, "all streams to open", DEADLINE)
            await _push(plane, 300)
            gc.collect()
            idle = (resident() - before) / STREAMS
            pushed = {size: await _push(plane, size) for size in SIZES}
            plane.server.publish(GATEWAY, [shared(300, ResourceType.CLUSTER)])
            followed = await _push(plane, 300, ResourceType.CLUSTER, ResourceType.ENDPOINT)
        finally:
            clients.kill()
            await clients.wait()

            async def all_gone() -> bool:
                return plane.acks.opened_streams == 0

            await until(all_gone, "all streams to end", DEADLINE)
    return [
        *(
            Figure(f"1,000 pushes of {size / 1000:g} KB", seconds, "s CPU", "< 0.25", "each ACKed; one connection each")
            for size, seconds in pushed.items()
        ),
        Figure("the same, 25 KB over 0.3 KB", pushed[25_000] / pushed[300], "x", "~ 1"),
        Figure(
            "1,000 pushes of a cluster and its assignment", followed, "s CPU", "", "two responses and two ACKs each"
        ),
        Figure("memory of an idle stream", idle / 1e3, "KB", "< 50", f"{STREAMS:,} streams, one connection each"),
    ]


def figures() -> list[Figure]:
    """The lines of the table."""
    _, most = limits.getrlimit(limits.RLIMIT_NOFILE)
    limits.setrlimit(limits.RLIMIT_NOFILE, (most, most))
    return asyncio.run(_run())


async def _clients(port: int) -> None:
    async with asyncio.TaskGroup() as tasks:
        for number in range(STREAMS):
            tasks.create_task(play(port, GATEWAY, number))


if __name__ == "__main__":
    _, most = limits.getrlimit(limits.RLIMIT_NOFILE)
    limits.setrlimit(limits.RLIMIT_NOFILE, (most, most))
    asyncio.run(_clients(int(sys.argv[1])))
