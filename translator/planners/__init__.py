"""Objects to plans: one service at a time, through a view, with no state of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from translator import names
from translator.objects.core import Service
from translator.objects.gateway import DEFAULT_PORT, ServiceGateway
from translator.objects.kserve import InferenceService
from translator.objects.kubedl import Inference
from translator.objects.policy import TrafficPolicy
from translator.objects.ref import Origin, Ref
from translator.plan import Backend, Edge, Finding, GatewayPlan, Reason, ServicePlan
from translator.planners import core, entry, families, hosts, kserve, kubedl, pods, policy, router
from translator.planners.attachments import TARGETS, attached
from translator.planners.components import ActiveComponents, Before, Unknown
from translator.planners.edge import DEFAULT_EDGE, planned_edge
from translator.planners.indexes import GATEWAYS, NAMED, POLICIES, Attached, age, target_of
from translator.planners.options import Options
from translator.planners.routing import Routing, may_take_grpc, without_grpc
from translator.planners.target import Resolved, Target, resolve
from translator.view import Absent, View

__all__ = ["Planned", "plan"]


@dataclass(frozen=True, slots=True)
class Planned:
    """What planning a target gave.

    ``accepted`` is the policy that is in force: the present one, or the last one that was valid. Without a gateway
    and a service the target is gone, another of its name has the gateway, or it is served by none; ``findings`` say so.
    ``awaited`` is a target that does not exist (or not as a target) and that something is attached to. ``active`` are
    the components of an InferenceService that get its requests.
    """

    gateway: GatewayPlan | None = None
    service: ServicePlan | None = None
    accepted: TrafficPolicy | None = None
    findings: tuple[Finding, ...] = ()
    awaited: bool = False
    active: ActiveComponents | None = None

    @property
    def superseded(self) -> bool:
        """Whether another target of its name has the gateway."""
        return self.service is None and any(found.reason is Reason.CONFLICTED for found in self.findings)

    @property
    def unserved(self) -> bool:
        """Whether the target is there, in a mode that gateways do not serve."""
        return self.service is None and any(found.reason is Reason.UNSUPPORTED_MODE for found in self.findings)


def plan(
    view: View,
    ref: Ref,
    options: Options,
    last_good: TrafficPolicy | None = None,
    before: Before = Unknown.RESTARTED,
) -> Planned:
    """Plan one target: an InferenceService, an Inference, or a Service that something is attached to.

    ``last_good`` is what the last plan of this target accepted. A policy that is invalid now is replaced by it, read
    leniently: what it names and nothing has any more gets no share. ``before`` is what was ``active`` then.
    """
    target = _target(view, ref, options, before)
    if target is None:
        return Planned(awaited=bool(view.find(POLICIES, ref) or view.find(GATEWAYS, ref)))
    rival = _older_rival(view, ref)
    if rival is not None:
        message = f"{rival} is older and has the gateway {names.gateway(ref)}"
        finding = Finding(Origin(ref, "metadata.name"), Reason.CONFLICTED, message)
        return Planned(findings=(finding,), active=_known(before))
    if target.unserved is not None:
        return Planned(findings=(target.unserved,), active=_known(before))
    gateway = attached(view, GATEWAYS, ref, ServiceGateway)
    wanted = attached(view, POLICIES, ref, TrafficPolicy)
    applied, accepted = _applied(view, target, wanted, options, last_good)
    resolved = resolve(view, applied.candidates, applied.connect_timeout, options.ca_file)
    granted, refused = _claimed(view, gateway, target, options)
    # While nothing valid is known of a policy, its router is kept: pods that were to be the same again are not rolled.
    entrance = _gateway(view, target, gateway, accepted or wanted, options)
    beside = router.beside(entrance.pods.router, accepted, applied)
    routing = Routing(
        target=target,
        rules=applied.rules,
        timeouts=applied.timeouts,
        variants=resolved.variants,
        claimed=granted,
        options=options,
        max_request_bytes=applied.max_request_bytes,
        takes_grpc=may_take_grpc(applied.rules, resolved.variants),
        first=beside.routes,
    )
    service = ServicePlan(
        service=ref,
        origin=Origin(ref, "spec") if accepted is None else Origin(accepted.ref, "spec"),
        gateway=names.gateway(ref),
        hosts=routing.hosts(),
        backends=(*_backends(resolved, entrance.edge), *beside.backends),
        url=target.addresses.url,
    )
    looked_up = [*resolved.findings, *without_grpc(applied.rules, resolved.variants, applied.candidates)]
    findings = (*target.findings, *applied.invalid, *applied.findings, *_expected(target, looked_up), *refused)
    return Planned(entrance, service, accepted, findings, active=target.active)


def _known(before: Before) -> ActiveComponents | None:
    return None if isinstance(before, Unknown) else before


def _backends(resolved: Resolved, edge: Edge) -> Iterator[Backend]:
    for variant in resolved.variants.values():
        yield replace(variant.backend, preserve_case=True) if edge.preserve_case else variant.backend
        if variant.grpc is not variant.backend:
            yield variant.grpc


def _target(view: View, ref: Ref, options: Options, before: Before) -> Target | None:
    found = view.get(ref, TARGETS[ref.kind])
    match found:
        case InferenceService():
            return kserve.target(view, found, options, entry.active(view, found, before))
        case Inference():
            return kubedl.target(view, found, options)
        case Service() if view.find(POLICIES, ref) or view.find(GATEWAYS, ref):
            return core.target(view, found, options)
        case _:
            return None


def _older_rival(view: View, ref: Ref) -> Ref | None:
    """The target of the same namespace and name that has the gateway, unless it is this one."""
    claims = view.find(NAMED, (ref.namespace, ref.name))
    rivals = {target_of(claim) if isinstance(claim, Attached) else claim.ref for claim in claims}
    if rivals <= {ref}:
        return None
    aged = [
        (age(found), rival) for rival in rivals if not isinstance(found := view.get(rival, TARGETS[rival.kind]), Absent)
    ]
    oldest = min(aged)[1]
    return None if oldest == ref else oldest


def _applied(
    view: View, target: Target, wanted: TrafficPolicy | None, options: Options, last_good: TrafficPolicy | None
) -> tuple[policy.Applied, TrafficPolicy | None]:
    if wanted is None:
        return policy.without(target), None
    applied = policy.apply(view, target, wanted, options)
    if not applied.invalid:
        return applied, wanted
    if last_good is None or last_good.ref != wanted.ref:
        served, accepted = policy.refused(target, applied), None
    else:
        served, accepted = policy.apply(view, target, last_good, options), last_good
    return replace(served, findings=(), invalid=applied.invalid), accepted


def _claimed(
    view: View, gateway: ServiceGateway | None, target: Target, options: Options
) -> tuple[tuple[str, ...], list[Finding]]:
    if gateway is None:
        return (), []
    components = (host for component in target.components for host in component.hosts)
    granted, refused = hosts.claimed(view, gateway, (*target.addresses.all, *components), options)
    if not target.cluster_local:
        return granted, refused
    message = f"has no effect: {target.ref} is for the cluster alone"
    ignored = Finding(Origin(gateway.ref, "spec.hosts"), Reason.FIELD_IGNORED, message)
    return (), [ignored] if gateway.spec.hosts else []


def _expected(target: Target, findings: list[Finding]) -> list[Finding]:
    """A stopped service has no Services; that is no news."""
    return [] if target.stopped else findings


def _gateway(
    view: View, target: Target, found: ServiceGateway | None, asking: TrafficPolicy | None, options: Options
) -> GatewayPlan:
    port = found.spec.port if found else DEFAULT_PORT
    reached = families.of_entrance(view, target)
    return GatewayPlan(
        name=names.gateway(target.ref),
        address=families.address(view, found, reached, options),
        port=port,
        trusted_hops=options.trusted_hops,
        origin=Origin(found.ref, "spec") if found else Origin(target.ref, "metadata.name"),
        pods=pods.pods(found, router.planned(asking, port), reached),
        edge=planned_edge(found.spec.edge) if found else DEFAULT_EDGE,
        default_host=target.addresses.inside[0],
        name_backends=options.name_backends_in_errors,
    )
