"""What all protocols of the simulation share: its name, its limits, its pace, and how it says who it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from aiohttp import web

from xdserve.router.admission import Admission
from xdserve.router.answers import Body, reply
from xdserve.router.settings import RouterSettings

VARIANT = "x-variant"


class Simulation:
    """A model that takes its time. Every answer names the variant: header `x-variant` and JSON field `variant`."""

    def __init__(self, settings: RouterSettings, admission: Admission) -> None:
        self.model, self.variant, self.admission = settings.model_ref, settings.answers_as, admission
        self._seconds = settings.processing_ms / 1000

    async def pause(self) -> None:
        """Take the time of one piece of work."""
        if self._seconds:
            await asyncio.sleep(self._seconds)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Run inside the block, in a place of its own, after the time that the work takes."""
        async with self.admission.place():
            await self.pause()
            yield

    def reply(self, body: Body, headers: Mapping[str, str] | None = None) -> web.Response:
        """An answer in JSON that names the variant."""
        return reply(body | {"variant": self.variant}, headers=headers)
