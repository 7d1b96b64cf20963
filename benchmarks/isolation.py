"""What one bad client does to others: one that refuses all it is sent, and one that never reads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.envoys import Crowd, Manner, crowd, open_files
from benchmarks.measure import Figure, quantile
from benchmarks.plane import DEADLINE, Acks, Plane, serving
from benchmarks.streams import shared
from xds.server import StreamInfo
from xds.session import Acknowledged, Event, Rejected, Response
from xds.types import ResourceType

GOOD = 50
EDITS = 60
ROUNDS = 4
BYTES = 25_000
"""Of a resource: what waits for a client that never reads fills all buffers after a few."""

OURS, OTHER = "models/ours", "models/other"
GUESTS = {
    "a good one": Crowd(port=0, gateway=OTHER),
    "one that refuses": Crowd(port=0, gateway=OTHER, manner=Manner.REFUSES),
    "one that never reads": Crowd(port=0, gateway=OTHER, manner=Manner.MUTE),
    "one that never reads, of the same gateway": Crowd(port=0, gateway=OURS, first=GOOD, manner=Manner.MUTE),
}
"""Who is there beside the good ones; the first is what the others are held against."""


class Watch(Acks):
    """When the good ones acknowledge, and whether the guest is as bad as it is meant to be."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self.sent_to_guest = 0
        self.refused_by_guest = 0
        self._start = 0.0
        self._missing = 0
        self._all_took = asyncio.Event()

    def edited(self) -> None:
        """The resource of the good ones is about to change."""
        self._start, self._missing = time.perf_counter(), GOOD
        self._all_took.clear()

    async def answered(self) -> None:
        """Wait until all of them have it."""
        await asyncio.wait_for(self._all_took.wait(), DEADLINE)

    def sent(self, stream: StreamInfo, _: Response) -> None:
        self.sent_to_guest += self._is_guest(stream)

    def event(self, stream: StreamInfo, event: Event) -> None:
        super().event(stream, event)
        self.refused_by_guest += isinstance(event, Rejected)
        if not isinstance(event, Acknowledged) or self._is_guest(stream) or event.type is not ResourceType.LISTENER:
            return
        self.seconds.append(time.perf_counter() - self._start)
        self._missing -= 1
        if not self._missing:
            self._all_took.set()

    @staticmethod
    def _is_guest(stream: StreamInfo) -> bool:
        return stream.gateway == OTHER or stream.node_id == f"model-{GOOD}"


@asynccontextmanager
async def _beside(plane: Plane, guest: Crowd) -> AsyncIterator[None]:
    async with crowd(guest):
        await plane.streams(GOOD + 1)
        yield
    await plane.streams(GOOD)


async def _edits(plane: Plane, watch: Watch) -> list[float]:
    """Seconds from each edit to the ACK of each good one; the other gateway changes as often."""
    watch.seconds = []
    for _ in range(EDITS):
        changed, other = shared(BYTES), shared(BYTES)
        watch.edited()
        plane.server.publish(OTHER, [other])
        plane.server.publish(OURS, [changed])
        await watch.answered()
    return watch.seconds


async def _run() -> dict[str, list[float]]:
    watch = Watch()
    found: dict[str, list[float]] = {name: [] for name in GUESTS}
    async with serving(watch) as (plane, port):
        watch.edited()
        for gateway in (OURS, OTHER):
            plane.server.publish(gateway, [shared(BYTES)])
        async with crowd(Crowd(port=port, gateway=OURS, count=GOOD)):
            await watch.answered()
            for _ in range(ROUNDS):
                for name, guest in GUESTS.items():
                    found[name] += await _with_guest(plane, watch, guest, port)
        await plane.streams(0)
    return found


async def _with_guest(plane: Plane, watch: Watch, guest: Crowd, port: int) -> list[float]:
    watch.sent_to_guest = watch.refused_by_guest = 0
    there = Crowd(port=port, gateway=guest.gateway, first=guest.first, manner=guest.manner)
    async with _beside(plane, there):
        seconds = await _edits(plane, watch)
    if guest.manner == Manner.REFUSES and watch.refused_by_guest < EDITS / 2:
        raise RuntimeError(f"it refused {watch.refused_by_guest} of {EDITS}")
    if guest.manner == Manner.MUTE and watch.sent_to_guest > EDITS / 2:
        raise RuntimeError(f"it was sent {watch.sent_to_guest} of {EDITS}")
    return seconds


def figures() -> list[Figure]:
    """The lines of the table."""
    open_files()
    found = asyncio.run(_run())
    (first, usual), *others = found.items()
    p99 = quantile(usual, 0.99)
    who = f"{GOOD} Envoys of one gateway, {BYTES // 1000} KB, {ROUNDS * EDITS} edits"
    note = f"{who}; median {quantile(usual, 0.5) * 1e3:.1f} ms"
    return [
        Figure(f"edit -> ACK beside {first}, p99", p99 * 1e3, "ms", "", note),
        *(
            Figure(f"the same beside {name}", quantile(seconds, 0.99) / p99, "x", "~ 1", _median(seconds, usual))
            for name, seconds in others
        ),
    ]


def _median(seconds: list[float], usual: list[float]) -> str:
    return f"p99 over p99; the medians {quantile(seconds, 0.5) / quantile(usual, 0.5):.2f}"
