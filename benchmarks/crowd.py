"""From an edit to the ACK while many Envoys are connected, each to a gateway of its own: idle, and under many edits."""

from __future__ import annotations

import asyncio
import time
from itertools import count

from benchmarks import fleet
from benchmarks.envoys import Crowd, crowd, open_files
from benchmarks.measure import Figure, quantile
from benchmarks.plane import DEADLINE, Acks, Plane, serving
from xds.server import StreamInfo
from xds.session import Acknowledged, Event, Variant
from xds.types import ResourceType

ENVOYS = (1, 100, 1_000)
RATE = 50
"""Edits a second."""
EDITS = 300
GATEWAY = f"{fleet.NAMESPACE}/iris-{{}}"


class Edits(Acks):
    """Seconds from each edit to the ACK of its version, or of one that came after it."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self._waiting: dict[str, list[tuple[str, float]]] = {}
        self._quiet = asyncio.Event()

    def edited(self, gateway: str, version: str, start: float) -> None:
        """An edit was made."""
        self._waiting.setdefault(gateway, []).append((version, start))
        self._quiet.clear()

    async def answered(self) -> None:
        """Wait until every edit has its ACK."""
        await asyncio.wait_for(self._quiet.wait(), DEADLINE)

    def event(self, stream: StreamInfo, event: Event) -> None:
        super().event(stream, event)
        if isinstance(event, Acknowledged) and event.type is ResourceType.ROUTE and stream.gateway in self._waiting:
            self._took(stream.gateway, event.versions.get(stream.gateway, ""))

    def _took(self, gateway: str, version: str) -> None:
        waiting = self._waiting[gateway]
        versions = [edit[0] for edit in waiting]
        if version not in versions:
            return
        now = time.perf_counter()
        done = versions.index(version) + 1
        self.seconds += [now - start for _, start in waiting[:done]]
        del waiting[:done]
        if not waiting:
            del self._waiting[gateway]
        if not self._waiting:
            self._quiet.set()


_weights = count(1)


def _edit(plane: Plane, edits: Edits, number: int) -> None:
    """Change the weight of the canary of one service (10 at first); the objects are made before the clock starts."""
    gateway = GATEWAY.format(number)
    changed = fleet.puts(fleet.service(number, weight=11 + next(_weights) % 80)[:1])
    start = time.perf_counter()
    plane.apply(changed)
    scope = plane.server.scope(gateway)
    held = scope and scope.get(ResourceType.ROUTE, gateway)
    assert held is not None
    edits.edited(gateway, held.version, start)


async def _idle(plane: Plane, edits: Edits, envoys: int) -> list[float]:
    edits.seconds = []
    for number in range(EDITS):
        _edit(plane, edits, number * 7 % envoys)
        await edits.answered()
    return edits.seconds


async def _busy(plane: Plane, edits: Edits, envoys: int) -> list[float]:
    """Edits at their rate, whether or not those before are answered."""
    edits.seconds = []
    loop = asyncio.get_running_loop()
    start = loop.time()
    for number in range(EDITS):
        await asyncio.sleep(max(0.0, start + number / RATE - loop.time()))
        _edit(plane, edits, number * 7 % envoys)
    await edits.answered()
    return edits.seconds


async def _measured(envoys: int, variant: Variant) -> list[Figure]:
    edits = Edits()
    async with serving(edits) as (plane, port):
        await plane.grow(envoys)
        acknowledged = edits.expect(ResourceType.ROUTE, envoys)
        async with crowd(Crowd(port=port, gateway=GATEWAY, count=envoys, variant=variant)):
            await asyncio.wait_for(acknowledged, DEADLINE)
            idle = await _idle(plane, edits, envoys)
            busy = await _busy(plane, edits, envoys)
        await plane.streams(0)
    who = f"{envoys:,} Envoys" if envoys > 1 else "1 Envoy"
    how = f"{who}, {'delta' if variant is Variant.DELTA else 'state of the world'}"
    return [_figure("edit -> ACK, idle, median", idle, how), _figure(f"edit -> ACK, {RATE} edits/s, median", busy, how)]


def _figure(name: str, seconds: list[float], how: str) -> Figure:
    return Figure(name, quantile(seconds, 0.5) * 1e3, "ms", "", f"{how}; p99 {quantile(seconds, 0.99) * 1e3:.2f} ms")


def figures() -> list[Figure]:
    """The lines of the table."""
    open_files()
    runs = [(envoys, Variant.DELTA) for envoys in ENVOYS] + [(100, Variant.SOTW)]
    return [figure for envoys, variant in runs for figure in asyncio.run(_measured(envoys, variant))]
