"""A component is added to a live service under load: it gets requests once it is ready, and until then nobody notices.

KServe makes the Service of a component before its pods can answer. `xdserve serve` reads a directory, in which the test
does what KServe and the kubelet would: by counts of requests, not by the clock.
"""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import product, starmap

import pytest

from tests.support.documents import backend, endpoints, entrance, isvc, service
from tests.support.envoy import pick_ports
from tests.support.models import Server, model_server
from tests.support.plane import Gateway, gateway
from tests.support.serve import Serve
from tests.support.steady import Steady
from tests.support.wait import wait_until
from xdserve.demo.driver import post

HOST = "iris-models.example.com"
BODY = b'{"instances": [1]}'
PREDICT, EXPLAIN = "/v1/models/iris:predict", "/v1/models/iris:explain"
ADDED, READY, END = 50, 350, 550
"""Requests that have been answered when the component is added, when it is ready, and at the end."""


@dataclass(frozen=True)
class Component:
    """A component that is added: as the spec has it, its Service, what is asked, and what is said while it waits."""

    field: str
    spec: dict
    service: str
    paths: tuple
    meanwhile: str


TRANSFORMER = Component(
    "spec.transformer", {"transformer": {}}, "iris-transformer", (PREDICT,), "requests still enter at the predictor"
)
EXPLAINER = Component(
    "spec.explainer",
    {"explainer": {}},
    "iris-explainer",
    (EXPLAIN, PREDICT),
    "requests for :explain go where all others go",
)
ANOTHER = Component(
    "spec.predictor",
    {"predictor": {"name": "v2"}},
    "iris-v2-predictor",
    (PREDICT,),
    "requests still go to Service models/iris-predictor",
)


@dataclass
class Scene:
    """A live service, and the component that is to be added to it."""

    serve: Serve
    gateway: Gateway
    predictor: Server
    added: Server
    component: Component

    def add(self, *, ready=False):
        """As KServe does: pods are made, and are not ready."""
        self.serve.write("iris.yaml", isvc(**self.component.spec), *backend("iris-predictor", self.predictor.port))
        self.make_ready(ready=ready)

    def make_ready(self, *, ready=True):
        name = self.component.service
        self.serve.write("added.yaml", service(name), endpoints(name, self.added.port, ready=ready))

    async def restart(self):
        self.serve.kill()
        await self.serve.started()

    async def told(self):
        """True if a finding says that requests go on as before."""
        errors = [error for error in await self.serve.errors() if error["field"] == self.component.field]
        return [error["message"].rpartition("; ")[2] for error in errors] == [self.component.meanwhile]

    async def ask(self):
        return await self.gateway.ask(self.component.paths[0], method="POST", body=BODY)

    async def answers(self):
        return (await self.ask()).header("x-variant") == "added"


@asynccontextmanager
async def scene_of(folder, component):
    (port,) = pick_ports(1)
    async with AsyncExitStack() as stack:
        predictor, added = [await stack.enter_async_context(model_server(name)) for name in ("predictor", "added")]
        serve = stack.enter_context(Serve(folder, "--linger", "0.2"))
        serve.write("gateway.yaml", entrance(port))
        serve.write("iris.yaml", isvc(), *backend("iris-predictor", predictor.port))
        await serve.started()
        started = await stack.enter_async_context(gateway(serve, folder, port, ready=False))
        await started.envoy.wait_ready()
        yield Scene(serve, started, predictor, added, component)


CASES = [
    *product((TRANSFORMER, EXPLAINER), (True, False), (False, True)),
    (ANOTHER, True, True),
]


def _named(component, ready, restarted):
    return f"{component.service}-{'ready' if ready else 'never'}{'-restarted' if restarted else ''}"


@pytest.mark.parametrize(("component", "ready", "restarted"), CASES, ids=starmap(_named, CASES))
async def test_no_request_fails(tmp_path, component, ready, restarted):
    async with scene_of(tmp_path, component) as scene:
        load = Steady(scene.gateway.port, [post(HOST, path, BODY) for path in component.paths])
        async with load.running():
            await answered(load, ADDED)
            scene.add()
            await wait_until(scene.told, 20, "the component to be waited for")
            if restarted:
                await scene.restart()
                assert await scene.told()
            await answered(load, READY)
            assert scene.added.requests == 0
            if ready:
                scene.make_ready()
                await wait_until(lambda: scene.added.requests, 20, "the component to be asked")
            await answered(load, END)
        sys.stdout.write(f"\n{load.answers}, slowest {load.slowest:.3f} s; {scene.added.requests} at what was added\n")
        assert dict(load.answers) == {200: load.answers.total()}
        assert await scene.answers() == ready


async def test_after_a_restart_an_outage_is_none_of_the_predictors_business(tmp_path):
    """It was ready once: what it was to change never reaches the predictor."""
    async with scene_of(tmp_path, TRANSFORMER) as scene:
        scene.add(ready=True)
        await wait_until(scene.answers, 20, "the transformer to be asked")
        scene.serve.child.stop()
        scene.make_ready(ready=False)
        before = scene.predictor.requests
        await scene.serve.started()

        async def refused():
            return (await scene.ask()).status == 503

        await wait_until(refused, 20, "requests to be refused")
        assert scene.predictor.requests == before


async def answered(load, requests):
    """The clock of the test."""
    await wait_until(lambda: load.answers.total() >= requests, 30, f"{requests} answers")
