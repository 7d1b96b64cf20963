"""From changed objects to published resources: dirty services are planned, rendered, encoded and published.

An edit costs what it touches. A changed object dirties what has read it; a changed EndpointSlice alone re-encodes the
assignments that read it, and plans anew only when a backend became ready or stopped being so. The pipeline works in
slices, so that whoever runs it can let streams go on in between; it does no I/O and reads no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import NamedTuple, Protocol, TypeVar

from translator import envoy, names
from translator.envoy import Rendered
from translator.objects import ConfigMap, Object, TrafficPolicy
from translator.objects.ref import Origin, Ref
from translator.plan import Backend, Finding, GatewayPlan, Reason, ServicePlan
from translator.planners import Planned, naming, plan
from translator.planners.attachments import check, elsewhere
from translator.planners.components import ActiveComponents
from translator.planners.endpoints import endpoints
from translator.planners.indexes import INDEXES, Attached, target_of
from translator.planners.options import Options
from translator.planners.routing import gone
from translator.view import OBJECT, Derived, Key, Named, Objects, View
from xds.api.envoy.config.endpoint.v3 import LbEndpoint
from xds.types import ResourceType
from xds.wire import Encoder, Resource, resource, sharing
from xdserve.inherited import Inherited
from xdserve.sources import Broken, Change, Gone, Put

SLICE = 50
"""Services planned before others get their turn: about 4 ms."""

DirtyT = TypeVar("DirtyT", bound=Hashable)

TARGET_KINDS = frozenset({"InferenceService", "Inference"})


class Publisher(Protocol):
    """Where resources go; the xDS server is one."""

    def publish(self, gateway: str, put: Iterable[Resource], remove: Iterable[tuple[ResourceType, str]] = ()) -> object:
        """Change what a gateway is to have."""

    def retains(self, gateway: str, cluster: str) -> bool:
        """Whether a cluster that is not wanted any more may be needed again, should Envoys refuse what is."""

    def refresh(self, gateway: str, assignment: Resource) -> None:
        """The endpoints of a retained cluster are others now."""

    def forget(self, gateway: str) -> None:
        """A gateway is no more."""

    def connected(self, gateway: str) -> int:
        """How many Envoys a gateway has."""


class Reporter(Protocol):
    """Who is told what people should know; must not block."""

    def found(self, owner: Ref, findings: Sequence[Finding]) -> None:
        """All that is now wrong by the plan of a target, or with a policy's or gateway's attachment."""

    def failed(self, service: Ref, error: Exception) -> None:
        """A fault of ours. It costs one service its change, and nobody else anything."""


class ServiceReader(NamedTuple):
    """The plan of a service, as a reader of keys."""

    service: Ref
    what: str = "plan"


class AssignmentReader(NamedTuple):
    """The assignment of a service's backend, as a reader of keys.

    `what` keeps it from being equal to the `ServiceReader`, where users call a backend `plan`.
    """

    service: Ref
    backend: str
    what: str = "assignment"


class AttachmentReader(NamedTuple):
    """Whether a policy or gateway is attached to anything, as a reader of keys."""

    ref: Ref
    what: str = "attachment"


@dataclass(slots=True)
class Unit:
    """What is known of one target: its last plan, its backends, and those before them that Envoys may go back to."""

    planned: Planned = field(default_factory=Planned)
    backends: dict[str, Backend] = field(default_factory=dict)
    retained: dict[str, Backend] = field(default_factory=dict)


@dataclass(slots=True)
class Counts:
    """What the pipeline has done since it was made."""

    edits: int = 0
    planned_services: int = 0
    encoded_assignments: int = 0
    plan_failures: int = 0


class Pipeline:
    """Objects in, resources out; see the module.

    Args:
        options: the settings that planning depends on.
        publisher: where resources go.
        reporter: who is told what people should know.
        named: the objects that are asked for by name. A target that reads one keeps what it has until there is an
            answer: what is only not known yet must not be served as missing.
    """

    def __init__(self, options: Options, publisher: Publisher, reporter: Reporter, named: Named | None = None) -> None:
        self.objects = Objects(INDEXES)
        self.units: dict[Ref, Unit] = {}
        self.owners: dict[str, Ref] = {}
        self._vacated: set[str] = set()
        self.counts = Counts()
        self._options = options
        self._publisher = publisher
        self._reporter = reporter
        self.waiting: set[Ref] = set()
        """Targets whose plan waits for an object that is asked for by name."""
        self._named = named or Named()
        self._derived = Derived(self.objects, self._named)
        self._encoder = Encoder(memoize=(LbEndpoint,), limit=envoy.ENDPOINTS, shared=envoy.SHARED)
        self._dirty_services: dict[Ref, None] = {}
        self._dirty_assignments: dict[AssignmentReader, None] = {}
        self._dirty_attachments: dict[Ref, None] = {}
        self._inherited = Inherited()

    # -- Objects in ----------------------------------------------------------------------------------------------

    def apply(self, changes: Sequence[Change]) -> None:
        """Take changed objects in, and mark what they concern."""
        for change in changes:
            keys = self._take(change)
            if keys:
                self.counts.edits += 1
                self._mark(self._derived.affected(keys))
            self._answer(change)

    def _take(self, change: Change) -> set[Key]:
        match change:
            case Put(object=found):
                keys = self.objects.put(found)
                if keys:
                    self._introduce(found)
                return keys
            case Gone(ref=ref):
                self._inherited.take(ref)
                return self.objects.remove(ref)
            case Broken(ref=ref):
                return self._break(ref)

    def _answer(self, change: Change) -> None:
        """What waits for an object goes on, also where there is none and nothing is another."""
        ref = change.object.ref if isinstance(change, Put) else change.ref
        if self._named.answer(ref):
            self._mark(self._derived.dependants((OBJECT, ref)))

    def _break(self, ref: Ref) -> set[Key]:
        """What is unreadable now stays as it was, also as an earlier program knew it."""
        remembered = None if ref in self.objects else self._inherited.take(ref)
        if remembered is None:
            self._inherited.unreadable(ref)
            return self.objects.broken(ref)
        keys = self.objects.put(remembered)
        self._introduce(remembered)
        return keys

    def _introduce(self, found: Object) -> None:
        """Nobody has read what is new; so say what it makes or is attached to."""
        if found.KIND in TARGET_KINDS:
            self._dirty_services[found.ref] = None
        elif found.ref == naming.config_map(self._options):
            self._dirty_attachments[found.ref] = None
        elif isinstance(found, Attached):
            self._dirty_attachments[found.ref] = None
            self._dirty_services[target_of(found)] = None

    def _mark(self, readers: Iterable[Hashable]) -> None:
        for reader in readers:
            match reader:
                case ServiceReader(service=ref):
                    self._dirty_services[ref] = None
                case AssignmentReader():
                    self._dirty_assignments[reader] = None
                case AttachmentReader(ref=ref):
                    self._dirty_attachments[ref] = None

    def elsewhere(self, target: Ref) -> bool:
        """Whether a target is not here, and may be another release's: then so is all that is said of what it has."""
        return elsewhere(target, self.objects.get(target), self._options)

    # -- What is in force -----------------------------------------------------------------------------------------

    def accepted(self, target: Ref) -> TrafficPolicy | None:
        """The policy that is in force for a target, or was when it was there last."""
        unit = self.units.get(target)
        if unit is not None and unit.planned.accepted is not None:
            return unit.planned.accepted
        return self._inherited.accepted(target)

    def active(self, target: Ref) -> ActiveComponents | None:
        """The components that get the requests of an InferenceService, or did when it was there last."""
        unit = self.units.get(target)
        if unit is not None and unit.planned.active is not None:
            return unit.planned.active
        return self._inherited.active(target)

    def remember(
        self, accepted: Mapping[Ref, TrafficPolicy], active: Mapping[Ref, ActiveComponents] | None = None
    ) -> None:
        """Know what an earlier program had in force, by target. To be called before the first objects come.

        A policy replaces one that is invalid when its target is planned first, or unreadable before it was ever read.
        From now on `drain` says what changes.
        """
        self._inherited = Inherited(accepted, active, watched=True)

    def open(self) -> None:
        """The first pass is over: a target that comes from now on is new, unless its text could not be read before."""
        self._inherited.open(self.waiting)

    def settle(self) -> None:
        """All objects have come: what is remembered of a target or policy that did not is forgotten."""
        self._inherited.clear(self.waiting)

    def drain(self) -> list[Ref]:
        """The targets that have a policy or components in force that they had not; none before `remember`."""
        return self._inherited.drain()

    def backends(self, target: Ref) -> Mapping[str, Backend]:
        """The backends of a target's gateway, by name; none while it has no gateway."""
        unit = self.units.get(target)
        return unit.backends if unit is not None else {}

    # -- Resources out -------------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether everything is done."""
        return not (self._dirty_services or self._dirty_assignments or self._dirty_attachments)

    def run(self, limit: int = SLICE) -> bool:
        """Do a slice of what is to be done; whether more is left."""
        for reader in _taken(self._dirty_assignments, limit):
            unit = self.units.get(reader.service)
            # A target that is losing its gateway to another writes nothing there: names may be the same.
            owns = self.owners.get(names.gateway(reader.service)) == reader.service
            if unit is not None and owns:
                self._guarded(reader.service, partial(self._assign, unit, reader))
        for ref in _taken(self._dirty_services, limit):
            unit = self.units.setdefault(ref, Unit())
            self._guarded(ref, partial(self._service, unit, ref))
        for ref in _taken(self._dirty_attachments, limit):
            self._guarded(ref, partial(self._attachment, ref))
        return not self.idle

    def _guarded(self, ref: Ref, work: Callable[[], None]) -> None:
        """A fault of ours harms one service, policy or gateway: it keeps what it has, and the fault is told."""
        try:
            work()
        except Exception as error:  # noqa: BLE001 - any fault, so that it stays with its object; it is told
            self.counts.plan_failures += 1
            message = f"internal error ({type(error).__name__}); what was good before stays"
            failure = Finding(Origin(ref, "spec"), Reason.FAILED, message)
            known = self.units[ref].planned.findings if ref in self.units else ()
            self._reporter.found(ref, (*known, failure))
            self._reporter.failed(ref, error)

    def _assign(self, unit: Unit, reader: AssignmentReader) -> None:
        """The short way: endpoints changed, nothing else."""
        gateway = names.gateway(reader.service)
        if reader.backend in unit.backends:
            made = self._assignment(reader.service, unit.backends[reader.backend])
            self._publisher.publish(gateway, [made])
        elif reader.backend in unit.retained:
            self._publisher.refresh(gateway, self._assignment(reader.service, unit.retained[reader.backend]))

    def _service(self, unit: Unit, ref: Ref) -> None:
        view = View(self.objects, self._derived)
        self.counts.planned_services += 1
        self.waiting.discard(ref)
        last_good, known = self.accepted(ref), self.active(ref)
        before = self._inherited.before(ref, unit.planned.active)
        try:
            planned = plan(view, ref, self._options, last_good, before)
        finally:
            self._derived.record(ServiceReader(ref), view.reads)
        if self._named.awaited and self._derived.depends(ServiceReader(ref), self._named.awaited):
            self.waiting.add(ref)
            return
        if planned.service is None:
            self._withdraw(ref, unit, planned)
        elif planned.gateway is not None:
            self._publish(unit, planned.gateway, planned.service)
        unit.planned = planned
        self._inherited.planned(ref, planned, last_good, known)
        self._mark(self._derived.affected(self.objects.establish(ref, planned.active)))
        self._reporter.found(ref, planned.findings)
        if planned.service is None and not (planned.findings or planned.awaited):
            del self.units[ref]
            self._derived.record(ServiceReader(ref), ())

    def _publish(self, unit: Unit, gateway: GatewayPlan, service: ServicePlan) -> None:
        taken_over = self.owners.get(gateway.name) != service.service
        put: list[Resource] = []
        if taken_over or gateway != unit.planned.gateway:
            put.append(self._encode(envoy.listener(gateway)))
        if taken_over or service != unit.planned.service:
            put.append(self._encode(envoy.route_configuration(service)))
        wanted = {backend.name: backend for backend in service.backends}
        for backend in service.backends:
            if taken_over or unit.backends.get(backend.name) != backend:
                put += [
                    self._encode(envoy.cluster(service.service, backend)),
                    self._assignment(service.service, backend),
                ]
        before = unit.retained | unit.backends
        remove = list(self._dropped(service.service, unit, wanted))
        self.owners[gateway.name] = service.service
        self._vacated.discard(gateway.name)
        unit.backends = wanted
        self._publisher.publish(gateway.name, put, remove)
        self._retain(service.service, unit, before)

    def _retain(self, ref: Ref, unit: Unit, before: dict[str, Backend]) -> None:
        """Keep the endpoints of former backends fresh where Envoys may go back to them."""
        gateway, unit.retained = names.gateway(ref), {}
        for name, backend in before.items():
            if name not in unit.backends:
                if self._publisher.retains(gateway, names.cluster(ref, name)):
                    unit.retained[name] = backend
                else:
                    self._derived.record(AssignmentReader(ref, name), ())

    def _dropped(self, ref: Ref, unit: Unit, wanted: dict[str, Backend]) -> Iterator[tuple[ResourceType, str]]:
        for name in unit.backends.keys() - wanted.keys():
            yield ResourceType.CLUSTER, names.cluster(ref, name)
            yield ResourceType.ENDPOINT, names.cluster(ref, name)

    def _withdraw(self, ref: Ref, unit: Unit, planned: Planned) -> None:
        """A target is gone, or an older one of its name has the gateway now. A gateway without target answers 404."""
        gateway = names.gateway(ref)
        owner = self.owners.get(gateway)
        remove = list(self._dropped(ref, unit, {}))
        for name in unit.retained | unit.backends:
            self._derived.record(AssignmentReader(ref, name), ())
        unit.backends, unit.retained = {}, {}
        if owner != ref:
            self._leave(gateway, owner, remove)
            return
        del self.owners[gateway]
        self._vacated.add(gateway)
        if planned.superseded:
            # The other's routes replace these in a moment; until then they hold their clusters.
            self._publisher.publish(gateway, (), remove)
        elif self._publisher.connected(gateway):
            answer = gone(ref, unserved=planned.unserved)
            self._publisher.publish(gateway, [self._encode(envoy.route_configuration(answer))], remove)
        else:
            self.release(gateway)

    def _leave(self, gateway: str, owner: Ref | None, remove: list[tuple[ResourceType, str]]) -> None:
        """The gateway is another's already; what that has of the same name stays."""
        if owner is None or not remove:
            return
        held = {names.cluster(owner, backend) for backend in self.units[owner].backends}
        self._publisher.publish(gateway, (), [(kind, name) for kind, name in remove if name not in held])

    def release(self, gateway: str) -> None:
        """An Envoy has left: a gateway whose target is gone, and that has no other Envoy, is forgotten.

        A gateway that never had one is not: its service may only be unreadable, and what is remembered of it is wanted.
        """
        if gateway in self._vacated and not self._publisher.connected(gateway):
            self._vacated.remove(gateway)
            self._publisher.forget(gateway)

    def _attachment(self, ref: Ref) -> None:
        view = View(self.objects, self._derived)
        checked = naming.check if ref.kind == ConfigMap.KIND else check
        self._reporter.found(ref, checked(view, ref, self._options))
        self._derived.record(AttachmentReader(ref), view.reads if ref in self.objects else ())

    def _assignment(self, service: Ref, backend: Backend) -> Resource:
        view = View(self.objects, self._derived)
        found = endpoints(view, backend.endpoints)
        rendered = envoy.assignment(service, backend, found)
        self._derived.record(AssignmentReader(service, backend.name), view.reads)
        self.counts.encoded_assignments += 1
        made = self._encode(rendered)
        return made if found else replace(made, vacant=True)

    def _encode(self, made: Rendered) -> Resource:
        body = self._encoder.encode(made.message)
        framed = resource(made.type, made.name, body, uses=made.uses, origin=made.origin)
        return sharing(framed, self._encoder.shared(made.shared)) if made.shared else framed


def _taken(dirty: dict[DirtyT, None], limit: int) -> list[DirtyT]:
    """Take out the oldest, so that what becomes dirty meanwhile comes after."""
    taken = list(islice(dirty, limit))
    for entry in taken:
        del dirty[entry]
    return taken
