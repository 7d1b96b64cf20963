"""A source of several namespaces, by an apiserver of a few lines: connections, and what is not installed."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import structlog
from aiohttp import web

from tests.support.wait import wait_until
from xdserve.kube import client as module
from xdserve.kube import course
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
    """Has nothing, and `missing` not even as a kind; counts the watches it holds, and the lists it answers at once."""

    def __init__(self, missing=None):
        self.missing = missing
        self.slow = ()
        self.watches = self.lists = self.most = 0

    async def answer(self, request):
        if request.path.endswith(f"/{self.missing}"):
            return web.json_response({"kind": "Status", "code": 404, "message": "not found"}, status=404)
        if "watch" in request.query:
            self.watches += 1
            response = web.StreamResponse()
            await response.prepare(request)
            await asyncio.Event().wait()
        if request.path.endswith(self.slow):
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


@asynccontextmanager
async def reading(apiserver, namespaces, tmp_path):
    """A source that reads, and its client."""
    application = web.Application()
    application.router.add_get("/{path:.*}", apiserver.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    (tmp_path / "kubeconfig").write_text(KUBECONFIG.format(port=runner.addresses[0][1]))
    client = await connect(tmp_path / "kubeconfig")
    source = KubernetesSource(client, Feed(), namespaces)
    task = asyncio.create_task(source.run())
    try:
        yield source, client
    finally:
        task.cancel()
        await asyncio.wait([task])
        await client.close()
        await runner.cleanup()


async def test_the_watches_of_many_namespaces_leave_connections_for_all_else(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LISTS_AT_ONCE", 5)
    apiserver = Apiserver()
    async with reading(apiserver, NAMESPACES, tmp_path) as (source, client):
        await wait_until(lambda: apiserver.watches == len(NAMESPACES) * len(RESOURCES))
        assert source.synced.is_set()
        assert await Calls(client)("GET", LEASE)
        assert apiserver.most <= 5


async def test_what_is_waited_for_is_named(tmp_path):
    apiserver = Apiserver()
    apiserver.slow = ("/services", "/trafficpolicies")
    async with reading(apiserver, NAMESPACES[:2], tmp_path) as (source, _):
        await wait_until(lambda: apiserver.watches == 2 * (len(RESOURCES) - 2))
        assert source.awaited() == "the first list of trafficpolicies.xdserve.io, services"
        assert not source.synced.is_set()


async def test_nothing_is_waited_for_when_all_is_listed(tmp_path):
    async with reading(Apiserver(), NAMESPACES[:2], tmp_path) as (source, _):
        assert source.awaited().startswith("the first list of inferenceservices.serving.kserve.io, ")
        await source.synced.wait()
        assert source.awaited() == ""


async def test_what_is_not_installed_is_told_once(tmp_path, monkeypatch):
    monkeypatch.setattr(course, "CONFIRM_DELAY", 0.0)
    monkeypatch.setattr(course, "POLL_DELAY", 0.01)
    apiserver = Apiserver(missing="inferences")
    with structlog.testing.capture_logs() as logged:
        async with reading(apiserver, NAMESPACES[:3], tmp_path) as (source, _):
            await source.synced.wait()
            looks = source.requests()["looks"]
            await wait_until(lambda: source.requests()["looks"] > looks + 3)
    said = [line for line in logged if line["event"] == "not installed, waited for"]
    assert [(line["log_level"], line["resource"]) for line in said] == [("info", "inferences.serving.kubedl.io")]
