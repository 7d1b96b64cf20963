"""What the server holds for streams at rest, and for resources: growth of its resident set."""

from __future__ import annotations

import asyncio
import gc

from benchmarks.envoys import Crowd, crowd, open_files
from benchmarks.measure import Figure, resident
from benchmarks.plane import DEADLINE, serving
from benchmarks.streams import GATEWAY, shared
from xds.server import Limits
from xds.types import ResourceType
from xds.wire import resource

STREAMS = 10_000
SHARED = 100
"""Streams of one connection."""
GATEWAYS = 10_000
KINDS = (
    ResourceType.CLUSTER,
    ResourceType.CLUSTER,
    ResourceType.ENDPOINT,
    ResourceType.ENDPOINT,
    ResourceType.LISTENER,
    ResourceType.ROUTE,
)
BYTES = 600
"""Of a resource, as the fleet's have on average."""


async def _streams() -> float:
    """Bytes a stream, each with four types asked for and one resource acknowledged."""
    async with serving(limits=Limits(admission_rate=1e6)) as (plane, port):
        plane.server.publish(GATEWAY, [shared(300)])
        acknowledged = plane.acks.expect(ResourceType.ROUTE, STREAMS)
        before = resident()
        async with crowd(Crowd(port=port, gateway=GATEWAY, count=STREAMS, shared=SHARED, at_once=20), processes=2):
            await asyncio.wait_for(acknowledged, 4 * DEADLINE)
            gc.collect()
            held = (resident() - before) / STREAMS
        await plane.streams(0)
    return held


async def _resources() -> float:
    """Bytes a resource, with its share of its gateway."""
    async with serving() as (plane, _):
        gc.collect()
        before = resident()
        for number in range(GATEWAYS):
            name = f"models/iris-{number}"
            made = [
                resource(type_, f"{name}/{at}", f"{number} {at}".encode() * (BYTES // len(f"{number} {at}")))
                for at, type_ in enumerate(KINDS)
            ]
            plane.server.publish(name, made)
        gc.collect()
        return (resident() - before) / GATEWAYS / len(KINDS)


def figures() -> list[Figure]:
    """The lines of the table."""
    open_files()
    resources = asyncio.run(_resources())
    streams = asyncio.run(_streams())
    return [
        Figure("memory of an idle stream", streams / 1e3, "KB", "", f"{STREAMS:,} streams, {SHARED} to a connection"),
        Figure(
            "memory of 1,000 resources",
            resources,
            "KB",
            "",
            f"of {BYTES} bytes, in {GATEWAYS:,} gateways of {len(KINDS)}",
        ),
    ]
