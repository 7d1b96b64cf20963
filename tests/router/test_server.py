"""Routers inside a program's own event loop, as demos and tests have them."""

from __future__ import annotations

import aiohttp
import pytest

from tests.router.rig import HOST
from xdserve.router.server import Router
from xdserve.router.settings import load


async def test_several_live_in_one_loop():
    routers = [Router(load({"ADDRESS": HOST, "PORT": "0", "GRPC_PORT": "0", "VARIANT": name})) for name in ("a", "b")]
    for router in routers:
        await router.start()
    async with aiohttp.ClientSession() as session:
        for router, name in zip(routers, ("a", "b"), strict=True):
            async with session.get(f"http://{HOST}:{router.port}/echo") as response:
                assert response.headers["x-variant"] == name
            assert router.grpc_port
    await routers[0].finish()
    for router in routers:
        await router.stop()


async def test_one_that_cannot_start_leaves_nothing_open():
    first = Router(load({"ADDRESS": HOST, "PORT": "0"}))
    await first.start()
    second = Router(load({"ADDRESS": HOST, "PORT": str(first.port), "GRPC_PORT": "0"}))
    with pytest.raises(OSError, match="address already in use"):
        await second.start()
    await first.stop()
    await second.stop()
    third = Router(load({"ADDRESS": HOST, "PORT": str(first.port), "GRPC_PORT": str(second.grpc_port)}))
    await third.start()
    await third.stop()
