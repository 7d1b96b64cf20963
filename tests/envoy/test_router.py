"""The router beside a stock Envoy, both from the gateway's manifests: what it asks goes by the gateway's rules."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import replace

import aiohttp
import pytest
import pytest_asyncio
import yaml
from aiohttp import web

from bootstrap.address import Address
from bootstrap.manifests import Deploying, Owner, manifests
from tests.support.certificates import Authority
from tests.support.documents import backend, entrance, isvc, policy, split, to_service
from tests.support.router_pod import RouterPod, gateway_port
from tests.support.serve import HOST, Serve
from tests.support.wait import wait_until
from translator.objects import parse
from translator.objects.ref import Ref
from translator.planners import plan, router
from translator.planners.indexes import INDEXES
from translator.planners.options import Options
from translator.view import Objects, View

OWNER = Owner(Ref("serving.kserve.io", "InferenceService", "models", "iris"), "v1beta1", "uid-1")
TOKEN = "token-of-iris"
V2 = to_service("v2", "iris-v2")


class Model:
    """A model server (v1) whose prediction is its own name; it answers while `go` is set."""

    def __init__(self, variant):
        self.variant, self.running, self.peak, self.port = variant, 0, 0, 0
        self.headers = []
        self.go = asyncio.Event()
        self.go.set()

    async def __aenter__(self):
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, 0).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *error):
        await self._runner.cleanup()

    async def _answer(self, request):
        if request.path != "/v1/models/iris:predict":
            return web.json_response({"path": request.path, "method": request.method})
        self.headers.append(request.headers)
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            await self.go.wait()
            return web.json_response({"predictions": [self.variant]})
        finally:
            self.running -= 1


class Site:
    """A server on a directory, two models, and the manifests that its gateway's plan gives."""

    def __init__(self, folder, models):
        self.folder, self.models = folder, models
        self.port = gateway_port()
        self.url = f"http://{HOST}:{self.port}"
        authority = Authority()
        cert, key = authority.server().write(folder, "server")
        self._ca = authority.certificate.decode()
        tokens = {"models/iris": [hashlib.sha256(TOKEN.encode()).hexdigest()]}
        (folder / "tokens.yaml").write_text(yaml.safe_dump(tokens))
        flags = ("--xds-cert", cert, "--xds-key", key, "--xds-tokens", folder / "tokens.yaml")
        self.serve = Serve(folder, *map(str, flags))
        for name, model in (("iris-predictor", models["stable"]), ("iris-v2", models["v2"])):
            self.serve.write(f"{name}.yaml", *backend(name, model.port))
        self.serve.write("gateway.yaml", entrance(self.port))
        self.write()

    def write(self, *, labels=None, **spec):
        """Another policy: the router's own settings, and what else is given."""
        self.documents = [isvc(labels=labels), policy(backends=[V2], **{"router": {}, **spec})]
        self.serve.write("iris.yaml", *self.documents)

    def pod(self):
        objects = Objects(INDEXES)
        for document in (*self.documents, entrance(self.port)):
            objects.put(parse(document))
        gateway = plan(View(objects), OWNER.ref, Options()).gateway
        gateway = replace(gateway, address="0.0.0.0")  # loopback, where this pod is, nobody would reach on a cluster
        deploying = Deploying(xds_address=Address("localhost", self.serve.port), ca=self._ca, grace=30)
        return RouterPod(self.folder, manifests(OWNER, gateway, deploying), token=TOKEN)

    async def infer(self, session, prompt="hello", **options):
        """Status and content of an answer."""
        async with session.post(f"{self.url}/infer", json={"prompt": prompt}, **options) as response:
            return response.status, await response.json()

    async def served(self, count, **options):
        """How often each model was the one that answered."""
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
            answers = [await self.infer(session, **options) for _ in range(count)]
        assert {status for status, _ in answers} == {200}
        return Counter(answer["output"] for _, answer in answers)


@pytest_asyncio.fixture
async def site(tmp_path):
    async with AsyncExitStack() as stack:
        models = {name: await stack.enter_async_context(Model(name)) for name in ("stable", "v2")}
        made = Site(tmp_path, models)
        with made.serve:
            yield made


async def test_what_the_router_asks_is_split_by_the_weights(site):
    """And a changed weight is live: neither the pod nor the router hears of it."""
    site.write(split=split(predictor=3, v2=1), router={"modelRef": "iris", "kvEndpoints": ["kv-1:6379"]})
    with site.pod() as pod:
        await site.serve.started()
        await pod.started()
        async with aiohttp.ClientSession() as session:
            status, answer = await site.infer(session)
            assert status == 200
            assert (answer["modelRef"], answer["routerPod"], answer["kvEndpoints"]) == ("iris", "pod-1", ["kv-1:6379"])
            assert (answer["prompt"], answer["output"] in site.models) == ("hello", True)
        found = await site.served(400)
        assert found["stable"] + found["v2"] == 400
        assert 257 <= found["stable"] <= 343  # 300, at 1e-6
        site.write(split=split(v2=1), router={"modelRef": "iris", "kvEndpoints": ["kv-1:6379"]})
        await wait_until(lambda: only(site, "v2"), 20)
        assert await site.served(50) == {"v2": 50}


async def only(site, variant):
    return await site.served(5) == {variant: 5}


async def test_other_requests_go_to_the_model_as_they_do_without_a_router(site):
    with site.pod() as pod:
        await site.serve.started()
        await pod.started()
        async with aiohttp.ClientSession() as session:
            for method, path in (("GET", "/infer"), ("POST", "/infer/x"), ("PUT", "/infer"), ("POST", "/inferior")):
                async with session.request(method, site.url + path) as response:
                    assert await response.json() == {"path": path, "method": method}
            async with session.post(f"{site.url}/v1/models/iris:predict", json={"instances": [1]}) as response:
                assert await response.json() == {"predictions": ["stable"]}
            # What the router has beside: none of it is the gateway's to give.
            async with session.get(f"{site.url}/metrics") as response:
                assert await response.json() == {"path": "/metrics", "method": "GET"}


async def test_rules_hold_for_what_the_router_asks(site):
    """By the client's header, cookie, query and host; also for a service that is for the cluster alone."""
    conditions = [
        {"headers": [{"name": "x-tester", "value": "true"}]},
        {"cookies": [{"name": "beta", "value": "1"}]},
        {"queryParams": [{"name": "debug", "type": "Present"}]},
    ]
    rules = [{"name": "testers", "matches": conditions, "split": split(v2=1)}]
    site.write(rules=rules, labels={"networking.kserve.io/visibility": "cluster-local"})
    host = {"Host": "iris-gateway.models.svc.cluster.local"}
    with site.pod() as pod:
        await site.serve.started()
        await pod.started()
        assert await site.served(5, headers=host) == {"stable": 5}
        assert await site.served(5, headers=host | {"x-tester": "true"}) == {"v2": 5}
        assert await site.served(5, headers=host | {"Cookie": "beta=1"}) == {"v2": 5}
        assert await site.served(5, headers=host, params={"debug": "1"}) == {"v2": 5}
        async with aiohttp.ClientSession() as session:
            assert (await site.infer(session))[0] == 404
    assert all(headers["Host"] == host["Host"] for headers in site.models["v2"].headers)


async def test_a_client_stays_with_the_backend_that_its_first_prompt_met(site):
    site.write(split=split(predictor=1, v2=1), sticky={"by": "Cookie", "name": "xd"})
    with site.pod() as pod:
        await site.serve.started()
        await pod.started()
        met = set()
        for _ in range(20):
            async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
                outputs = {(await site.infer(session))[1]["output"] for _ in range(5)}
                assert len(outputs) == 1
                met |= outputs
        assert met == {"stable", "v2"}


@pytest.mark.parametrize(("overflow", "statuses"), [("queue", {200: 6}), ("reject", {200: 2, 429: 4})])
async def test_no_more_run_at_once_than_the_policy_says(site, overflow, statuses):
    site.write(router={"maxConcurrency": 2, "overflow": overflow})
    model = site.models["stable"]
    model.go.clear()
    with site.pod() as pod:
        await site.serve.started()
        await pod.started()
        async with aiohttp.ClientSession() as session:
            asking = [asyncio.ensure_future(site.infer(session, str(number))) for number in range(6)]
            await wait_until(lambda: model.running == 2)
            if overflow == "reject":
                await wait_until(lambda: sum(each.done() for each in asking) == 4)
            model.go.set()
            found = Counter(status for status, _ in await asyncio.gather(*asking))
    assert (found, model.peak) == (statuses, 2)


async def test_a_pod_is_ready_when_its_router_is_whatever_its_backends_are(site):
    site.serve.write("iris-predictor.yaml", *backend("iris-predictor"))
    with site.pod() as pod:
        await site.serve.started()
        await pod.started()
        async with aiohttp.ClientSession() as session:
            status, answer = await site.infer(session)
            assert (status, answer["upstreamStatus"]) == (502, 503)
            pod.router.kill()
            status, answer = await site.infer(session)
            assert (status, answer["error"]["reason"]) == (503, "BackendFailed")
        probe = pod.router_container["readinessProbe"]["httpGet"]
        assert await pod._get(probe, 3) == 503


async def test_nobody_passes_envoy_by(site):
    """The router listens on the pod's loopback alone."""
    with site.pod() as pod:
        await site.serve.started()
        await pod.started()
        given = {one["name"]: one.get("value") for one in pod.router_container["env"]}
        assert (given["ADDRESS"], given["PORT"]) == ("127.0.0.1", str(router.port(site.port)))
        line = pod.router.log.read_text()
        assert f"127.0.0.1:{router.port(site.port)}" in line


async def test_a_pod_ends_when_its_router_has_answered(site):
    """Prompts that run or wait are answered, and those that still come; then both processes end by themselves."""
    site.write(router={"maxConcurrency": 1})
    model = site.models["stable"]
    with site.pod() as pod:
        await site.serve.started()
        await pod.started()
        model.go.clear()
        async with aiohttp.ClientSession() as session, aiohttp.ClientSession() as late:
            asking = [asyncio.ensure_future(site.infer(session, str(number))) for number in range(3)]
            await wait_until(lambda: model.running == 1)
            ending = asyncio.create_task(pod.stop())
            await wait_until(lambda: not_ready(pod), 10)
            asking.append(asyncio.ensure_future(site.infer(late, "late")))
            assert not ending.done()
            model.go.set()
            assert [status for status, _ in await asyncio.gather(*asking)] == [200] * 4
            assert await ending == {"envoy": 0, "router": 0}


async def not_ready(pod):
    return not await pod.ready()
