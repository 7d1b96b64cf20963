"""A model server that simulates work and speaks KServe v1 and v2, OpenAI and the open inference protocol over gRPC."""

from __future__ import annotations

from collections.abc import Sequence

from xdserve.router.answers import Endpoint
from xdserve.router.passing import Answered, Passed
from xdserve.router.simulation import echo, openai, v1, v2
from xdserve.router.simulation.base import VARIANT, Simulation
from xdserve.router.simulation.grpc import GrpcSimulation

__all__ = ["VARIANT", "GrpcSimulation", "SimulatedWork", "Simulation"]


class SimulatedWork:
    """The router's work without a real model: time passes."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation

    async def answer(self, prompt: str, beside: Passed) -> Answered:  # noqa: ARG002 - of Work
        """Take the time that work takes; there is nothing to tell."""
        await self._simulation.pause()
        return Answered({})

    async def ready(self) -> bool:
        """Always."""
        return True

    def endpoints(self) -> Sequence[Endpoint]:
        """Those of all protocols."""
        parts = (v1, v2, openai, echo)
        return [endpoint for part in parts for endpoint in part.endpoints(self._simulation)]
