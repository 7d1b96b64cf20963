"""KServe's v1 protocol: predictions and explanations give the instances back."""

from __future__ import annotations

from aiohttp import web

from xdserve.router.answers import MODEL, Body, Endpoint, Failure
from xdserve.router.body import kind_of, parse_object
from xdserve.router.simulation.base import Simulation


def endpoints(simulation: Simulation) -> tuple[Endpoint, ...]:
    """What v1 has; the two lists of models are OpenAI's, too."""

    async def models(_: web.Request) -> web.Response:
        name = simulation.model
        return simulation.reply({"models": [name], "object": "list", "data": [_card(name)]})

    async def model(request: web.Request) -> web.Response:
        name = request.match_info["model"]
        return simulation.reply({"name": name, "ready": True, **_card(name)})

    async def predict(request: web.Request) -> web.Response:
        return await per_instance(request, "predictions")

    async def explain(request: web.Request) -> web.Response:
        return await per_instance(request, "explanations")

    async def per_instance(request: web.Request, field: str) -> web.Response:
        instances = parse_object(await simulation.admission.body(request)).get("instances")
        if not isinstance(instances, list):
            raise Failure(400, f"instances: found {kind_of(instances)}, allowed is a list")
        async with simulation.working():
            return simulation.reply({field: instances})

    return (
        Endpoint("GET", "/v1/models", "The model, for KServe v1 and OpenAI", models),
        Endpoint("GET", f"/v1/models/{MODEL}", "Whether the model is ready (always), for KServe v1 and OpenAI", model),
        Endpoint("POST", f"/v1/models/{MODEL}:predict", "KServe v1: each of `instances` as its prediction", predict),
        Endpoint("POST", f"/v1/models/{MODEL}:explain", "KServe v1: each of `instances` as its explanation", explain),
    )


def _card(name: str) -> Body:
    return {"id": name, "object": "model", "created": 0, "owned_by": "xdserve"}
