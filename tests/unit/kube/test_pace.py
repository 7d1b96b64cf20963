"""A burst passes at once, then requests go out evenly, and what was not used is not saved up beyond the burst."""

from __future__ import annotations

import asyncio

from xdserve.kube.pace import Pace


class Clock:
    """Time that passes by sleeping alone."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(asyncio, "sleep", self._sleep)

    async def _sleep(self, seconds):
        self.now += seconds


async def test_the_rate_is_kept(monkeypatch):
    clock = Clock(monkeypatch)
    pace = Pace(10.0, 5.0, lambda: clock.now)
    waited = []
    for _ in range(10):
        before = clock.now
        await pace.turn()
        waited.append(round(clock.now - before, 6))
    assert waited == [0.0] * 5 + [0.1] * 5
    clock.now += 60
    before = clock.now
    for _ in range(6):
        await pace.turn()
    assert round(clock.now - before, 6) == 0.1
