"""A gateway in a cluster with IPv6 is reached by both families, and moves there while it runs."""

from __future__ import annotations

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


async def test_a_running_gateway_moves_between_the_families(tmp_path, model_servers):
    """As with an upgrade in a cluster that has IPv6: for a moment two sockets listen at one port."""
    models = backend("iris-predictor", model_servers["stable"].port)

    def at(address):
        return lambda port: entrance(port, address=address)

    async with serving(tmp_path, isvc(), models, at("0.0.0.0")) as gateway:
        for address, hosts in (("::", (V4, V6)), ("0.0.0.0", (V4,)), ("::", (V4, V6))):
            await gateway.edit(at(address)(gateway.port))
            for host in hosts * 10:
                assert (await http1(gateway.port, "/v1/models/iris", to=host)).status == 200, (address, host)
        assert not gateway.plane.rejections().total()
