"""A publisher and reporter that keep what a pipeline says, and a pipeline made with them."""

from __future__ import annotations

from collections.abc import Iterable

from translator.objects import Object, Ref, parse
from translator.planners.options import Options
from xds.scope import Scope
from xds.types import ResourceType
from xds.wire import decode
from xdserve.pipeline import Pipeline
from xdserve.printing import CLASSES
from xdserve.sources import Broken, Change, Gone, Put, Source

SOURCE = Source("objects.yaml", 1)


class Recorder:
    """Scopes by gateway, findings by owner, faults; `envoys` are the gateways that have an Envoy connected."""

    def __init__(self) -> None:
        self.scopes: dict[str, Scope] = {}
        self.findings: dict[Ref, tuple] = {}
        self.faults: list[tuple[Ref, Exception]] = []
        self.published: list[str] = []
        self.forgotten: list[str] = []
        self.envoys: set[str] = set()

    def publish(self, gateway, put, remove=()):
        self.published.append(gateway)
        return self.scopes.setdefault(gateway, Scope(gateway)).update(put, remove)

    def retains(self, gateway, cluster):
        return self.scopes[gateway].retains(cluster)

    def refresh(self, gateway, assignment):
        self.scopes[gateway].refresh(assignment)

    def forget(self, gateway):
        self.scopes.pop(gateway, None)
        self.forgotten.append(gateway)

    def connected(self, gateway):
        return int(gateway in self.envoys)

    def found(self, owner, findings):
        self.findings[owner] = tuple(findings)

    def failed(self, service, error):
        self.faults.append((service, error))


class Run:
    """A pipeline and what it has said."""

    def __init__(self, options: Options | None = None) -> None:
        self.said = Recorder()
        self.pipeline = Pipeline(options or Options(), self.said, self.said)

    def put(self, *documents: dict) -> None:
        """Take documents in and do all that follows."""
        self.apply([Put(made(document), SOURCE) for document in documents])

    def gone(self, *refs: Ref) -> None:
        self.apply([Gone(ref) for ref in refs])

    def broken(self, *refs: Ref) -> None:
        self.apply([Broken(ref, (), SOURCE) for ref in refs])

    def apply(self, changes: Iterable[Change]) -> None:
        self.pipeline.apply(list(changes))
        self.finish()

    def finish(self) -> None:
        while self.pipeline.run():
            pass

    def resources(self, gateway: str) -> dict[tuple[str, str], tuple[str, str]]:
        """Version and origin of what a gateway is to have, by type and name."""
        scope = self.said.scopes[gateway]
        return {(found.type.short, found.name): (found.version, str(found.origin)) for found in scope.resources()}

    def reasons(self) -> dict[str, list[str]]:
        """What is wrong, by owner: the reason and the line."""
        return {
            str(owner): sorted(f"{found.reason.value} {found}" for found in findings)
            for owner, findings in self.said.findings.items()
            if findings
        }

    def split(self, gateway: str) -> dict[str, int]:
        """The backends that the default route of a gateway sends to, with their weights."""
        action = self._default_route(gateway).route
        if action is None:
            return {}
        if action.weighted_clusters is None:
            return {_backend(action.cluster): 1}
        return {_backend(share.name): share.weight for share in action.weighted_clusters.clusters}

    def status(self, gateway: str) -> int | None:
        """What the default route answers by itself."""
        reply = self._default_route(gateway).direct_response
        return None if reply is None else reply.status

    def _default_route(self, gateway: str):
        held = self.said.scopes[gateway].get(ResourceType.ROUTE, gateway)
        return decode(CLASSES[ResourceType.ROUTE], held.body).virtual_hosts[0].routes[-1]

    def addresses(self, gateway: str, backend: str) -> list[str]:
        held = self.said.scopes[gateway].get(ResourceType.ENDPOINT, f"{gateway}/{backend}")
        assignment = decode(CLASSES[ResourceType.ENDPOINT], held.body)
        return [
            found.endpoint.address.socket_address.address
            for locality in assignment.endpoints
            for found in locality.lb_endpoints
        ]

    def counted(self) -> tuple[int, int]:
        """Services planned and assignments encoded since the pipeline was made."""
        return self.pipeline.counts.planned_services, self.pipeline.counts.encoded_assignments


def _backend(cluster: str) -> str:
    return cluster.split("/", 2)[2]


def made(document: dict) -> Object:
    found = parse(document)
    assert found is not None
    return found
