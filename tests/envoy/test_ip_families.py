"""A gateway in a cluster with IPv6 is reached by both families, and moves there while it serves."""

from __future__ import annotations

import asyncio

from tests.support.documents import backend, entrance, isvc
from tests.support.model import Model, serve
from tests.support.plane import serving
from tests.support.requests import http1, http2

V4, V6 = "127.0.0.1", "::1"


async def test_both_families_reach_a_gateway_of_all_addresses(tmp_path, model_servers):
    models = backend("iris-predictor", model_servers["stable"].port)

    def listening(port):
        return entrance(port, address="::")

    async with serving(tmp_path, isvc(), models, listening) as gateway:
        for host in (V4, V6):
            for ask in (http1, http2):
                assert (await ask(gateway.port, "/v1/models/iris", to=host)).status == 200, (host, ask)


async def test_a_model_server_of_ipv6_is_reached(tmp_path):
    async with serve(Model("v6"), V6, 0) as port:
        models = backend("iris-predictor", port)
        models[1] |= {"addressType": "IPv6", "endpoints": [{"addresses": [V6], "conditions": {"ready": True}}]}
        async with serving(tmp_path, isvc(), models, entrance) as gateway:
            assert await gateway.variant() == "v6"


async def test_a_gateway_that_serves_moves_to_both_families_and_loses_no_request(tmp_path, model_servers):
    """As with an upgrade in a cluster that has IPv6: for a moment two sockets listen at one port."""
    models = backend("iris-predictor", model_servers["stable"].port)

    def at(address):
        return lambda port: entrance(port, address=address)

    async with serving(tmp_path, isvc(), models, at("0.0.0.0")) as gateway:
        served, moved = [], asyncio.Event()

        async def ask():
            while not moved.is_set():
                served.append((await http1(gateway.port, "/v1/models/iris", to=V4)).status)

        asking = [asyncio.create_task(ask()) for _ in range(8)]
        for address in ("::", "0.0.0.0", "::"):
            await gateway.edit(at(address)(gateway.port))
            before = len(served)
            while len(served) < before + 100:
                await asyncio.wait(asking, timeout=0.01)
        moved.set()
        await asyncio.gather(*asking)
        assert set(served) == {200}
        assert len(served) > 300
        assert (await http1(gateway.port, "/v1/models/iris", to=V6)).status == 200
