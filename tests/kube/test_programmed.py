"""From what an Envoy answers to what the user reads: the real server, planning and apiserver, an Envoy by hand."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import grpc.aio
import pytest

from tests.stream.rig import Client
from tests.support.documents import backend, isvc, policy, split, to_service
from tests.support.kube import ApiError
from tests.support.wait import wait_until
from translator.objects import Ref, parse
from translator.planners.options import Options
from xds.server import Server
from xds.session import Terms
from xds.types import ResourceType
from xdserve.judge import Judge
from xdserve.kube.calls import Calls
from xdserve.kube.events import Recorder
from xdserve.kube.leader import Leadership
from xdserve.kube.patches import path_of
from xdserve.kube.progress import ProgressObserver
from xdserve.kube.settling import Bounds
from xdserve.kube.status import StatusWriter
from xdserve.ledger import Ledger, entry
from xdserve.metrics import Metrics
from xdserve.observer import StreamObserver
from xdserve.pipeline import Pipeline
from xdserve.rejections import Rejections
from xdserve.sources import Put, Source

OUR_CRDS = Path(__file__).parents[2] / "helm/xdserve/files/crds"
WORDS = "invalid regex: missing )"


def _now():
    return datetime.now(UTC)


class Program:
    """The parts of a program but its source, put together as the program does."""

    def __init__(self, apiserver, client, namespace):
        self.apiserver, self.namespace = apiserver, namespace
        metrics = Metrics(process=False)
        self.ledger = Ledger(_now, lambda ref: None)
        self.rejections = Rejections(self.ledger, metrics, _now)
        streams = StreamObserver(metrics, lambda gateway: None, self.rejections.say)
        observer = ProgressObserver(streams, self.moved)
        self.server = Server(Terms(identifier="test", linger=0), observer)
        self.pipeline = Pipeline(Options(), self.server, self)
        judge = Judge(self.pipeline, self.server, self.ledger, self.rejections)
        call = Calls(client)
        self.leadership = Leadership(call, namespace, "xdserve-0")
        self.recorder = Recorder(call, "xdserve-0")
        self.writer = StatusWriter(
            call,
            judge,
            self.document,
            self.leadership,
            self.recorder,
            settled=lambda: self.pipeline.idle,
            settling=Bounds(quiet=0.2, longest=0.5),
        )
        self.ledger.subscribe(self.writer.mark)
        self.rejections.subscribe(lambda gateway, _: self.writer.mark_gateway(gateway))

    def moved(self, gateway):
        self.writer.mark_gateway(gateway)

    def document(self, ref):
        try:
            return self.apiserver.call("GET", path_of(ref))
        except ApiError:
            return None

    def found(self, owner, findings):
        self.ledger.say(owner, [entry(finding) for finding in findings])

    def failed(self, service, error):
        raise error

    async def put(self, *documents):
        """As users do, and as the source then tells."""
        there = [json.loads(json.dumps(one).replace('"models"', f'"{self.namespace}"')) for one in documents]
        ours = [one for one in there if one["kind"] in ("InferenceService", "TrafficPolicy")]
        await asyncio.to_thread(self.apiserver.apply, *ours, namespace=self.namespace)
        objects = [parse(one) for one in there]
        self.pipeline.apply([Put(found, Source("cluster", 0)) for found in objects])
        while self.pipeline.run():
            pass
        self.writer.mark([found.ref for found in objects])

    def condition(self, kind, name):
        group = "xdserve.io" if kind == "TrafficPolicy" else "serving.kserve.io"
        status = self.document(Ref(group, kind, self.namespace, "iris")).get("status", {})
        listed = status.get("conditions") or [c for one in status.get("ancestors", []) for c in one["conditions"]]
        return next((one for one in listed if one["type"] == name), {"reason": None})

    async def reads(self, reason):
        """Policy and InferenceService both say so."""
        kinds = (("TrafficPolicy", "Programmed"), ("InferenceService", "xdserve.io/GatewayProgrammed"))
        for kind, name in kinds:
            await wait_until(lambda k=kind, n=name: self.condition(k, n)["reason"] == reason, 15, f"{reason} of {kind}")
        return self.condition(*kinds[0])

    def events(self):
        found = self.apiserver.call("GET", f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events")["items"]
        return {(one["regarding"]["kind"], one["type"], one["reason"]) for one in found}


class Envoy:
    """Takes all it is sent, but routes while it `refuses`, and answers nothing while it is not `free`."""

    def __init__(self, channel, gateway):
        self.client, self.gateway = Client(channel), gateway
        self.refuses = False
        self.free = asyncio.Event()

    async def run(self):
        for type_ in (ResourceType.CLUSTER, ResourceType.LISTENER):
            await self.client.say(type_, gateway=self.gateway)
        while True:
            response = await self.client.get()
            await self.free.wait()
            if self.refuses and response.type_url == ResourceType.ROUTE:
                await self.client.say(response.type_url, nonce=response.nonce, error=WORDS)
                continue
            await self.client.ack(response)
            if response.type_url == ResourceType.CLUSTER:
                await self.client.say(ResourceType.ENDPOINT, [one.name for one in response.resources])
            if response.type_url == ResourceType.LISTENER:
                await self.client.say(ResourceType.ROUTE, [self.gateway])


def shares(**more):
    return policy(backends=[to_service("stable", "iris-predictor")], split=split(stable=1), **more)


@pytest.fixture
async def program(apiserver, namespace):
    await asyncio.to_thread(apiserver.install, OUR_CRDS)
    async with await apiserver.client() as client:
        program = Program(apiserver, client, namespace)
        parts = (program.leadership, program.writer, program.recorder)
        tasks = [asyncio.create_task(part.run()) for part in parts]
        await wait_until(lambda: program.leadership.held)
        await program.put(isvc(), *backend("iris-predictor", 9001), shares())
        yield program
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await program.server.stop(0)


async def test_programmed_follows_what_envoys_answer(program):
    # Nothing provisions here, so that nobody has said that the service is to have a gateway.
    await wait_until(lambda: program.condition("TrafficPolicy", "Programmed")["reason"] == "NoGateway", 15)
    assert program.condition("InferenceService", "xdserve.io/GatewayProgrammed")["reason"] is None
    port = await program.server.start("127.0.0.1:0")
    program.server.open()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        envoy = Envoy(channel, f"{program.namespace}/iris")
        running = asyncio.create_task(envoy.run())
        await program.reads("Pending")
        envoy.free.set()
        assert (await program.reads("Programmed"))["observedGeneration"] == 1
        assert program.events() == set()

        envoy.refuses = True
        await program.put(shares(timeouts={"idle": "9s"}))
        refused = await program.reads("Rejected")
        assert (refused["status"], refused["observedGeneration"]) == ("False", 2)
        assert refused["message"].startswith("spec")
        assert WORDS in refused["message"]
        worse = {(kind, "Warning", "Rejected") for kind in ("TrafficPolicy", "InferenceService")}
        await wait_until(lambda: program.events() == worse)

        envoy.refuses = False
        await program.put(shares(timeouts={"idle": "8s"}))
        assert (await program.reads("Programmed"))["observedGeneration"] == 3
        mended = {(kind, "Normal", "Programmed") for kind in ("TrafficPolicy", "InferenceService")}
        await wait_until(lambda: program.events() == worse | mended)
        running.cancel()
        await asyncio.wait([running])
