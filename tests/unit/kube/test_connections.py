"""Many namespaces: each holds its watches for good, and everything else is to be answered still."""

from __future__ import annotations

import asyncio

from aiohttp import web

from tests.support.wait import wait_until
from xdserve.kube import client as module
from xdserve.kube.calls import Calls
from xdserve.kube.client import connect
from xdserve.kube.resources import RESOURCES
from xdserve.kube.source import KubernetesSource

KUBECONFIG = """
current-context: c
clusters: [{{name: c, cluster: {{server: "http://127.0.0.1:{port}"}}}}]
contexts: [{{name: c, context: {{cluster: c, user: u}}}}]
users: [{{name: u, user: {{token: secret}}}}]
"""
NAMESPACES = tuple(f"team-{number}" for number in range(40))
LEASE = "/apis/coordination.k8s.io/v1/namespaces/xdserve/leases/xdserve"


class Apiserver:
    """Has nothing; counts the watches that it holds, and the lists that it answers at once."""

    def __init__(self):
        self.watches = self.lists = self.most = 0

    async def answer(self, request):
        if "watch" in request.query:
            self.watches += 1
            response = web.StreamResponse()
            await response.prepare(request)
            await asyncio.Event().wait()
        if "limit" not in request.query:
            return web.json_response({"metadata": {"resourceVersion": "1"}})
        self.lists += 1
        self.most = max(self.most, self.lists)
        await asyncio.sleep(0)
        self.lists -= 1
        return web.json_response({"metadata": {"resourceVersion": "1"}, "items": []})


class Feed:
    def apply(self, changes):
        pass


async def test_the_watches_of_many_namespaces_leave_connections_for_all_else(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LISTS_AT_ONCE", 5)
    apiserver = Apiserver()
    application = web.Application()
    application.router.add_get("/{path:.*}", apiserver.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    (tmp_path / "kubeconfig").write_text(KUBECONFIG.format(port=runner.addresses[0][1]))
    client = await connect(tmp_path / "kubeconfig")
    source = KubernetesSource(client, Feed(), NAMESPACES)
    task = asyncio.create_task(source.run())
    try:
        await wait_until(lambda: apiserver.watches == len(NAMESPACES) * len(RESOURCES))
        assert source.synced.is_set()
        assert await Calls(client)("GET", LEASE)
        assert apiserver.most <= 5
    finally:
        task.cancel()
        await asyncio.wait([task])
        await client.close()
        await runner.cleanup()
