"""One server has read an edit that the other has not, and an Envoy is sent to and fro between them."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

import bootstrap
from tests.support.documents import backend, entrance, isvc, policy, split, to_service
from tests.support.envoy import pick_ports, running_envoy
from tests.support.models import model_server
from tests.support.plane import HOST, IRIS, Gateway, control_plane
from tests.support.wait import wait_until
from xdserve.demo.driver import Traffic, post

MOVES = 6
REQUEST = post("iris-models.example.com", "/v1/models/iris:predict", b'{"instances": [1]}')


def only(name, ports):
    """All goes to one backend, and there is no other."""
    return [*backend(f"{name}-service", ports[name]), _policy([name], {name: 1})]


def ready(name, ports):
    """Half goes to each backend, and one alone is ready."""
    services = [backend(f"{one}-service", port) for one, port in ports.items()]
    for one, (_, endpoints) in zip(ports, services, strict=True):
        endpoints["endpoints"][0]["conditions"]["ready"] = one == name
    return [*services, _policy(ports, dict.fromkeys(ports, 1))]


def _policy(names, weights):
    return policy(backends=[to_service(name, f"{name}-service") for name in names], split=split(**weights))


class Reader:
    """A server on a port of its own that knows some documents; each start is a new one."""

    def __init__(self, name, documents):
        self.name = name
        self.plane = None
        self._documents = documents
        (self.port,) = pick_ports(1)
        self._running = AsyncExitStack()

    async def start(self, linger):
        self.plane = await self._running.enter_async_context(control_plane(port=self.port, opened=False, linger=linger))
        self.plane.put(*self._documents)
        self.plane.server.open()

    async def stop(self):
        await self._running.aclose()

    def has_envoy(self):
        return self.plane.server.connected(IRIS) > 0 and self.plane.programmed()


@pytest.mark.parametrize("linger", [0.0, 0.2])
@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize("said", [only, ready])
async def test_nothing_is_taken_before_the_routes_have_left(tmp_path, said, concurrency, linger):
    (port,) = pick_ports(1)
    async with AsyncExitStack() as stack:
        ports = {name: (await stack.enter_async_context(model_server(name))).port for name in ("old", "new", "stable")}
        common = [isvc(), *backend("iris-predictor", ports.pop("stable")), entrance(port)]
        readers = [Reader(name, [*common, *said(name, ports)]) for name in ports]
        for reader in readers:
            await reader.start(linger)
            stack.push_async_callback(reader.stop)
        envoy = stack.enter_context(_envoy(tmp_path, readers, concurrency))
        await envoy.wait_ready()
        traffic = Traffic(HOST, port, REQUEST, connections=4, pause=0.002)
        async with traffic.running():
            for _ in range(MOVES):
                await _move(readers, linger, Gateway(envoy, port, None))
        assert traffic.failed == 0


async def _move(readers, linger, gateway):
    """The server that has the Envoy ends; the other leads it elsewhere; the first comes back."""
    await wait_until(lambda: any(reader.has_envoy() for reader in readers), 30, "a server to have the Envoy")
    here, there = sorted(readers, key=Reader.has_envoy, reverse=True)
    await here.stop()
    await wait_until(there.has_envoy, 30, f"the Envoy to have what {there.name} says")
    assert await gateway.variant() == there.name
    await here.start(linger)


def _envoy(folder, readers, concurrency):
    (admin,) = pick_ports(1)
    servers = [f"{HOST}:{reader.port}" for reader in readers]
    made = bootstrap.render(IRIS, servers, node_id="between", admin_address=f"{HOST}:{admin}")
    return running_envoy(folder, bootstrap.to_json(made), admin, concurrency=concurrency)
