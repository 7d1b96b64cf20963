"""What many streams cost the server: CPU of a push to each. The clients are another process."""

from __future__ import annotations

import asyncio
import gc
import time
from itertools import count

from benchmarks.envoys import Crowd, crowd, open_files
from benchmarks.measure import Figure, resident
from benchmarks.plane import DEADLINE, Plane, serving
from xds.session import Variant
from xds.types import ResourceType
from xds.wire import Resource, resource

STREAMS = 1_000
PUSHES = 5
SIZES = (300, 2_000, 25_000)
GATEWAY = "models/shared"

_revisions = count(1)


def shared(size: int, type_: ResourceType = ResourceType.LISTENER) -> Resource:
    """A resource of about so many bytes that is unlike any before it. Nothing has to follow a listener."""
    return resource(type_, "shared", next(_revisions).to_bytes(4, "big") * (size // 4))


async def push(plane: Plane, size: int, *types: ResourceType) -> float:
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


async def _pushed(variant: Variant) -> tuple[dict[int, float], float, float]:
    """CPU seconds by size; of a cluster and its assignment, in delta; and bytes a stream."""
    followed = 0.0
    async with serving() as (plane, port):
        plane.server.publish(GATEWAY, [shared(SIZES[0])])
        before = resident()
        async with crowd(Crowd(port=port, gateway=GATEWAY, count=STREAMS, variant=variant)):
            await plane.streams(STREAMS)
            await push(plane, 300)
            gc.collect()
            idle = (resident() - before) / STREAMS
            pushed = {size: await push(plane, size) for size in SIZES}
            if variant is Variant.DELTA:
                plane.server.publish(GATEWAY, [shared(300, ResourceType.CLUSTER)])
                followed = await push(plane, 300, ResourceType.CLUSTER, ResourceType.ENDPOINT)
        await plane.streams(0)
    return pushed, followed, idle


def figures() -> list[Figure]:
    """The lines of the table."""
    open_files()
    delta, followed, idle = asyncio.run(_pushed(Variant.DELTA))
    sotw, _, _ = asyncio.run(_pushed(Variant.SOTW))
    note = "each ACKed; one connection each"
    return [
        *(
            Figure(f"1,000 pushes of {size / 1000:g} KB", spent, "s CPU", "< 0.25", note)
            for size, spent in delta.items()
        ),
        Figure("the same, 25 KB over 0.3 KB", delta[25_000] / delta[300], "x", "~ 1"),
        Figure(
            "1,000 pushes of a cluster and its assignment", followed, "s CPU", "", "two responses and two ACKs each"
        ),
        *(
            Figure(f"state of the world: 1,000 pushes of {size / 1000:g} KB", spent, "s CPU", "", note)
            for size, spent in sotw.items()
        ),
        Figure("memory of an idle stream", idle / 1e3, "KB", "< 50", f"{STREAMS:,} streams, one connection each"),
    ]
