"""xdserve's pipeline and xDS server in the test's own event loop, fed with documents; and stock Envoys on it."""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import bootstrap
from bootstrap import Address
from tests.support.envoy import Envoy, pick_ports, running_envoy
from tests.support.requests import http1
from tests.support.wait import wait_until
from translator.objects import identify, parse
from translator.planners.options import Options
from xds.server import Consent, Server
from xds.session import Terms
from xds.types import ResourceType
from xdserve.admin import AdminServer
from xdserve.ledger import Ledger, entry
from xdserve.metrics import Metrics
from xdserve.observer import StreamObserver
from xdserve.pipeline import Pipeline
from xdserve.rejections import Rejections
from xdserve.series import GatewaySeries
from xdserve.sources import Gone, Put, Source
from xdserve.state import ProgramState
from xdserve.unreachable import Unreachable

HOST = "127.0.0.1"
IRIS = "models/iris"


class Plane:
    """A control plane on a loopback port; the reporter of its pipeline is itself."""

    def __init__(self, *, linger=0.2, patience=15.0, options=None, load_interval=10.0):
        self.metrics = Metrics(process=False)
        self.ledger = Ledger(lambda: datetime.now(UTC), lambda ref: None)
        self.rejected = Rejections(self.ledger, self.metrics, lambda: datetime.now(UTC))
        observer = StreamObserver(self.metrics, self._left, self.rejected.say)
        terms = Terms(identifier="test", linger=linger, patience=patience)
        self.server = Server(terms, observer, load_interval=load_interval)
        self.pipeline = Pipeline(options or Options(), self.server, self)
        self.unreachable = Unreachable(self.pipeline.backends, self.server.loads, self.ledger)
        self.port = 0

    def put(self, *documents):
        """Take documents (or lists of them) in, and do all there is to do."""
        listed = [one for found in documents for one in (found if isinstance(found, list) else [found])]
        self._apply([Put(parse(document), Source("test.yaml", 1)) for document in listed])

    def remove(self, *documents):
        """The objects of these documents are gone."""
        self._apply([Gone(identify(document)) for document in documents])

    def _apply(self, changes):
        self.pipeline.apply(changes)
        while self.pipeline.run():
            pass

    def found(self, owner, findings):
        self.ledger.say(owner, [entry(finding) for finding in findings])
        self.unreachable.planned(owner)

    def failed(self, service, error):
        raise error

    def _left(self, gateway):
        self.pipeline.release(gateway)

    def sent(self):
        """Resources sent so far, by type."""
        return self._count("resources_sent")

    def rejections(self):
        """Responses refused so far, by type."""
        return self._count("rejections")

    def _count(self, metric):
        samples = next(iter(getattr(self.metrics, metric).collect())).samples
        return Counter({sample.labels["type"]: int(sample.value) for sample in samples})

    def programmed(self, gateway=IRIS):
        """Whether every Envoy of the gateway has acknowledged everything that the gateway is to have."""
        scope = self.server.scope(gateway)
        return scope is not None and all(
            self.server.acknowledged(gateway, kept.type, kept.name, kept.version) is Consent.ALL
            for kept in scope.resources()
        )

    def scope_version(self, kind, name=IRIS, gateway=IRIS):
        """The version of a resource that a gateway is to have."""
        return self.server.scope(gateway).get(ResourceType(kind), name).version

    @asynccontextmanager
    async def admin(self):
        """The admin endpoints of this plane; the block gets their address."""
        state = ProgramState(self.pipeline, self.server, self.ledger, self.rejected, lambda: "")
        series = GatewaySeries(lambda: self.pipeline.owners, self.server.connected, self.server.loads.reports)
        server = AdminServer(Address(HOST, 0), state, self.metrics, series)
        try:
            yield str(await server.start())
        finally:
            await server.stop()


@asynccontextmanager
async def control_plane(*, port=0, opened=True, **how):
    """A running plane; one that is not `opened` refuses streams."""
    plane = Plane(**how)
    plane.port = await plane.server.start(f"{HOST}:{port}")
    if opened:
        plane.server.open()
    try:
        yield plane
    finally:
        await plane.server.stop(0.1)


@dataclass
class Gateway:
    """An Envoy of one gateway, and the port that it serves."""

    envoy: Envoy
    port: int
    plane: Plane
    name: str = IRIS

    async def settled(self, seconds=20.0):
        """Wait until the last edit is in force: acknowledged, and then seen by every worker."""
        await wait_until(lambda: self.plane.programmed(self.name), seconds, f"{self.name} to be programmed")
        for _ in range(8):  # what a worker does after it got a request, it does with the newest routes
            await http1(self.port, "/healthz")

    async def edit(self, *documents):
        """Put documents, and wait until they are in force."""
        self.plane.put(*documents)
        await self.settled()

    async def ask(self, path="/v1/models/iris", **how):
        """One request."""
        return await http1(self.port, path, **how)

    async def variant(self, path="/v1/models/iris", **how):
        """Who answers; fails unless it is a 200."""
        reply = await self.ask(path, **how)
        assert reply.status == 200, reply
        return reply.header("x-variant")

    async def clusters(self):
        """The names of the clusters that Envoy has over xDS."""
        return set(await self.envoy.versions("clusters"))

    async def dump(self, kind):
        """The entries of one kind of a config dump, such as `dynamic_listeners`."""
        return [entry for config in await self.envoy.config_dump() for entry in config.get(kind, [])]


@asynccontextmanager
async def gateway(plane, folder, port, *, name=IRIS, concurrency=1, xds_port=None, label="envoy", ready=True):
    """An Envoy of a gateway whose listener is at `port`; `xds_port` goes another way than straight to the plane."""
    (admin,) = pick_ports(1)
    made = bootstrap.render(name, f"{HOST}:{xds_port or plane.port}", node_id=label, admin_address=f"{HOST}:{admin}")
    with running_envoy(folder, bootstrap.to_json(made), admin, name=label, concurrency=concurrency) as envoy:
        started = Gateway(envoy, port, plane, name)
        if ready:
            await envoy.wait_ready()
            await wait_until(lambda: plane.programmed(name), 20, "the gateway to be programmed")
        yield started


@asynccontextmanager
async def serving(folder, *documents, gateway_name=IRIS, concurrency=1, **how):
    """A plane with these documents, which are given the port of the gateway where they ask for it, and its Envoy."""
    (port,) = pick_ports(1)
    async with control_plane(**how) as plane:
        plane.put(*(one(port) if callable(one) else one for one in documents))
        async with gateway(plane, folder, port, name=gateway_name, concurrency=concurrency) as started:
            await started.settled()
            yield started
