"""A gateway's pods, started from their manifests, with `xdserve serve` over TLS: they come up, follow, and drain."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import asynccontextmanager

import aiohttp
import pytest
import pytest_asyncio
import yaml
from aiohttp import web

from bootstrap.address import Address
from bootstrap.manifests import CA_FILE, Deploying, Owner, manifests
from tests.support.certificates import Authority
from tests.support.documents import backend, entrance, isvc
from tests.support.envoy import pick_ports
from tests.support.pod import Pod, Service
from tests.support.requests import http1
from tests.support.serve import HOST, Serve
from tests.support.wait import wait_until
from translator.objects.ref import Origin, Ref
from translator.plan import GatewayPlan
from translator.planners.edge import DEFAULT_EDGE

OWNER = Owner(Ref("serving.kserve.io", "InferenceService", "models", "iris"), "v1beta1", "uid-1")
TOKEN = "token-of-iris"


class Site:
    """A server with TLS that knows a token, and the manifests of the one gateway it has."""

    def __init__(self, folder, model_port):
        self.folder, self.model_port = folder, model_port
        self.authority = Authority()
        self.cert, self.key = self.authority.server().write(folder, "server")
        (self.port,) = pick_ports(1)
        tokens = {"models/iris": [hashlib.sha256(TOKEN.encode()).hexdigest()]}
        (folder / "tokens.yaml").write_text(yaml.safe_dump(tokens))
        flags = ("--xds-cert", self.cert, "--xds-key", self.key, "--xds-tokens", folder / "tokens.yaml")
        self.serve = Serve(folder, *map(str, flags))
        self.serve.write("iris.yaml", isvc(), *backend("iris-predictor", model_port), entrance(self.port))

    def manifests(self, **more):
        plan = GatewayPlan(
            "models/iris", "0.0.0.0", self.port, 0, Origin(OWNER.ref, "metadata.name"), edge=DEFAULT_EDGE
        )
        address = Address("localhost", self.serve.port)
        given = {"ca": self.authority.certificate.decode(), "grace": 15, **more}
        return manifests(OWNER, plan, Deploying(xds_address=address, **given))

    def pod(self, name="pod-1", **more):
        return Pod(self.folder, self.manifests(**more), token=TOKEN, name=name)


@pytest_asyncio.fixture
async def site(tmp_path):
    async with Model() as port:
        made = Site(tmp_path, port)
        with made.serve:
            yield made


class Model:
    """A model server that answers in no time, or streams a line each half a second."""

    async def __aenter__(self):
        app = web.Application()
        app.router.add_get("/stream/{lines}", self._stream)
        app.router.add_get("/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, 0).start()
        return self._runner.addresses[0][1]

    async def __aexit__(self, *error):
        await self._runner.cleanup()

    async def _answer(self, _):
        return web.Response(text="answer")

    async def _stream(self, request):
        response = web.StreamResponse()
        await response.prepare(request)
        for number in range(int(request.match_info["lines"])):
            await response.write(f"{number}\n".encode())
            await asyncio.sleep(0.5)
        return response


async def test_a_pod_gets_its_configuration_by_its_token_and_serves(site):
    with site.pod() as pod:
        await site.serve.started()
        await pod.started()
        assert (await http1(site.port)).body == b"answer"
        found = await site.serve.json("/debug/nodes")
        assert "models/iris/pod-1" in str(found)


async def test_a_pod_without_a_server_waits_and_is_not_restarted(site):
    """It is neither live nor ready, and only its startup probe runs, which lets it wait for a day."""
    with site.pod() as pod:
        envoy = pod.start()
        await wait_until(envoy.live, 20)
        assert not await pod.probe("startupProbe")
        startup = pod.container["startupProbe"]
        assert startup["failureThreshold"] * startup["periodSeconds"] >= 86_400
        await site.serve.started()
        await pod.wait_ready()
        assert await pod.probe("startupProbe")
        site.serve.kill()
        assert await pod.ready()
        assert await pod.probe("livenessProbe")
        assert (await http1(site.port)).status == 200


async def test_probes_do_not_depend_on_backends(site):
    site.serve.write("iris.yaml", isvc(), *backend("iris-predictor"), entrance(site.port))
    with site.pod() as pod:
        await site.serve.started()
        await pod.started()
        assert (await http1(site.port)).status == 503
        assert await pod.ready()
        assert await pod.probe("livenessProbe")


async def test_nothing_else_of_the_admin_interface_is_reached_from_outside(site):
    with site.pod() as pod:
        await site.serve.started()
        await pod.started()
        for path in ("/", "/stats", "/config_dump", "/ready/../stats", "/ready?x", "/quitquitquit"):
            for method in ("GET", "POST"):
                status = (await http1(pod.probe_port, path, method=method)).status
                assert status == 404 or (method == "GET" and path == "/ready?x" and status == 200), (method, path)
        for headers in ((), (("x-xdserve-drain", ""),), (("x-xdserve-drain", "0" * 32),)):
            assert (await http1(pod.probe_port, "/drain", headers=headers)).status == 404
        assert await pod.ready()


async def test_it_drains_without_cutting_a_stream(site):
    """A stream of 6 s completes, new answers say that the connection is to be closed, and the pod is not ready."""
    with site.pod(grace=30) as pod:
        await site.serve.started()
        await pod.started()
        url = f"http://{HOST}:{site.port}"
        async with (
            aiohttp.ClientSession() as asking,
            aiohttp.ClientSession() as streaming,
            streaming.get(f"{url}/stream/12") as stream,
        ):
            assert await stream.content.readline() == b"0\n"
            assert (await asking.get(url)).headers.get("connection") is None
            ending = asyncio.create_task(pod.stop())
            await wait_until(lambda: not_ready(pod), 10)
            for _ in range(3):
                response = await asking.get(url)
                assert (response.status, response.headers["connection"]) == (200, "close")
            assert not ending.done()
            rest = (await stream.content.read()).split()
            assert rest[-1] == b"11"
        assert await ending == 0  # when the client keeps its connection no more


async def not_ready(pod):
    return not await pod.ready()


async def test_a_stream_that_outlives_the_grace_period_ends_with_it(site):
    """The hook gives up with time left for Envoy to end by itself."""
    with site.pod() as pod:
        await site.serve.started()
        await pod.started()
        url = f"http://{HOST}:{site.port}/stream/1000"
        async with aiohttp.ClientSession() as session, session.get(url) as stream:
            started = asyncio.get_running_loop().time()
            assert await pod.stop() == 0
            assert asyncio.get_running_loop().time() - started < pod.spec["terminationGracePeriodSeconds"]
            with pytest.raises(aiohttp.ClientError):
                await stream.content.read()


async def test_a_rolling_update_fails_no_request(site, tmp_path):
    """Clients that keep their connections ask without a pause, while a pod comes and the one before it goes.

    Pods share an address here, so each has a port, and therefore a server, of its own; what a Service does is ours.
    """
    (tmp_path / "other").mkdir()
    other = Site(tmp_path / "other", site.model_port)
    with other.serve, site.pod("old") as old, other.pod("new") as new:
        await asyncio.gather(site.serve.started(), other.serve.started())
        await old.started()
        async with Service() as service:
            service.port_of[old] = site.port
            async with clients(service.port) as statuses:
                await wait_until(lambda: len(statuses) > 50)
                await new.started()
                service.port_of[new] = other.port
                del service.port_of[old]
                assert await old.stop() == 0
                seen = len(statuses)
                await wait_until(lambda: len(statuses) > seen + 50)
    assert set(statuses) == {200}


@asynccontextmanager
async def clients(port, count=4):
    """Ask without a pause, each on one connection for as long as it may; the statuses of all answers."""
    statuses, end = [], asyncio.Event()

    async def client():
        async with aiohttp.ClientSession() as session:
            while not end.is_set():
                async with session.get(f"http://{HOST}:{port}") as response:
                    assert await response.text() == "answer"
                    statuses.append(response.status)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(count):
            tasks.create_task(client())
        yield statuses
        end.set()


async def test_a_renewed_authority_reaches_the_pod_without_a_restart(site):
    """First both authorities are believed, then the server shows a certificate of the new one."""
    with site.pod() as pod:
        await site.serve.started()
        await pod.started()
        other = Authority("next")
        both = (site.authority.certificate + other.certificate).decode()
        before = deployment(site.manifests())
        assert deployment(site.manifests(ca=both)) == before
        pod.update(site.manifests(ca=both))
        assert (pod.folder / "config" / CA_FILE).read_text() == both
        site.serve.kill()
        other.server().write(site.folder, "server")
        await site.serve.started()
        await wait_until(lambda: connected(site), 30, "the pod to come again")


async def connected(site):
    return "models/iris/pod-1" in str(await site.serve.json("/debug/nodes"))


def deployment(made):
    return next(one["spec"] for one in made if one["kind"] == "Deployment")
