"""What arrived here, for a look at what a gateway did to a request."""

from __future__ import annotations

from aiohttp import web

from xdserve.router.answers import Endpoint
from xdserve.router.simulation.base import Simulation


def endpoints(simulation: Simulation) -> tuple[Endpoint, ...]:
    """One for every method, also below the path."""

    async def echo(request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        body = (await simulation.admission.body(request)).decode(errors="replace")
        return simulation.reply({"method": request.method, "path": request.path_qs, "headers": headers, "body": body})

    return (
        Endpoint("*", "/echo", "The request as it arrived here, whatever its method", echo),
        Endpoint("*", "/echo/{path:.*}", "The same", echo),
    )
