"""KServe's InferenceService: components, canaries, hosts and headers as its own ingress has them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from translator.objects.kserve import MODE_ANNOTATION, Canary, Component, InferenceService
from translator.objects.ref import Origin, Ref
from translator.plan import Finding, Reason
from translator.planners import hosts, ignored_fields
from translator.planners.components import EXPLAINER, PREDICTOR, TRANSFORMER, ActiveComponents
from translator.planners.entry import candidate, port_of, predictor_service, waiting, wanted
from translator.planners.naming import naming
from translator.planners.options import Options
from translator.planners.target import Candidate, Target, Weighted, is_ready
from translator.planners.target import Component as Part
from translator.view import View

COMPONENTS = (PREDICTOR, TRANSFORMER, EXPLAINER)

SERVED_MODE = "Standard"
UNSERVED_MODES = frozenset({"Knative", "ModelMesh"})
NO_REVISION = "there is no second revision to send to outside Knative"


def target(view: View, service: InferenceService, options: Options, active: ActiveComponents | None = None) -> Target:
    """What an InferenceService asks for by its own fields.

    With a transformer requests enter there (it calls the predictor by itself), else at the predictor and its
    canaries; ``:explain`` enters at the explainer. A component that was never ready is not ``active`` yet: requests
    go where they went before. None is what the spec says.
    """
    new = wanted(service)
    active = active or new
    candidates, entry = _candidates(service, active, new), active.entry
    named = naming(view, options)
    return Target(
        ref=service.ref,
        candidates=candidates,
        entry=entry,
        split=_split(view, service, candidates) if entry == PREDICTOR else (Weighted(TRANSFORMER, 100),),
        split_origin=Origin(service.ref, "spec.canary" if service.spec.canary else f"spec.{entry}"),
        addresses=hosts.addresses(named, service.ref, options),
        components=tuple(
            Part(name, (named.host(service.ref, name),), _timeout(component))
            for name, component in _components(service)
        ),
        explainer=EXPLAINER if active.explainer else None,
        request_timeout=_timeout(_entered(service, entry)),
        request_headers=_headers(service.ref),
        cluster_local=service.cluster_local,
        stopped=service.stopped,
        unserved=unserved(service),
        findings=(*_ignored(service, entry), *waiting(service, active, new)),
        active=active,
    )


def unserved(service: InferenceService) -> Finding | None:
    """Why an InferenceService gets no gateway: KServe runs it in a mode whose Services take no requests of gateways."""
    mode = service.deployment_mode
    if mode not in UNSERVED_MODES:
        return None
    field = "status.deploymentMode" if service.status.deployment_mode else f"metadata.annotations[{MODE_ANNOTATION}]"
    message = f"found {mode}, which gateways do not serve; allowed {SERVED_MODE}"
    return Finding(Origin(service.ref, field), Reason.UNSUPPORTED_MODE, message)


def _components(service: InferenceService) -> Iterator[tuple[str, Component]]:
    spec = service.spec
    for name, component in zip(COMPONENTS, (spec.predictor, spec.transformer, spec.explainer), strict=True):
        if component is not None:
            yield name, component


def _timeout(component: Component) -> int | None:
    return None if component.timeout is None else component.timeout * 1000


def _entered(service: InferenceService, entry: str) -> Component:
    """The component that requests enter at; a transformer that the spec has no more has no timeout of its own."""
    return service.spec.transformer if entry == TRANSFORMER and service.spec.transformer else service.spec.predictor


def _candidates(service: InferenceService, active: ActiveComponents, new: ActiveComponents) -> dict[str, Candidate]:
    """The Services that KServe makes, those of components that are not active too: they have hosts of their own."""
    found = {name: candidate(service, name, active.predictor) for name, _ in _components(service)}
    if new.entry != active.entry:
        found.setdefault(active.entry, candidate(service, active.entry, active.predictor))
        meanwhile = f"requests still enter at the {active.entry}"
        found[new.entry] = replace(found[new.entry], meanwhile=meanwhile)
    if new.explainer and not active.explainer:
        found[EXPLAINER] = replace(found[EXPLAINER], meanwhile="requests for :explain go where all others go")
    for position, canary in enumerate(service.spec.canary):
        found[_name(canary)] = _canary(service, position, canary)
    return found


def _name(canary: Canary) -> str:
    """A canary's own name, unless it is one of a component's."""
    return f"{canary.predictor.name}/canary" if canary.predictor.name in COMPONENTS else canary.predictor.name


def _canary(service: InferenceService, position: int, canary: Canary) -> Candidate:
    port = port_of(service, predictor_service(service, canary.predictor.name))
    # No status yet, as in files, leaves it to the endpoints.
    said = next(
        (status.ready for status in service.status.canary_statuses if status.name == canary.predictor.name), True
    )
    return Candidate(_name(canary), port, Origin(service.ref, f"spec.canary[{position}]"), ready=said)


def _split(view: View, service: InferenceService, candidates: dict[str, Candidate]) -> tuple[Weighted, ...]:
    """As KServe's controller: a ready canary has its trafficPercent, the stable predictor all the rest."""
    canaries = [
        Weighted(_name(canary), canary.traffic_percent)
        for canary in service.spec.canary
        if is_ready(view, candidates[_name(canary)])
    ]
    return (Weighted(PREDICTOR, 100 - sum(share.weight for share in canaries)), *canaries)


def _headers(ref: Ref) -> tuple[tuple[str, str], ...]:
    return (("KServe-Isvc-Name", ref.name), ("KServe-Isvc-Namespace", ref.namespace))


def _ignored(service: InferenceService, entry: str) -> list[Finding]:
    """What is written and cannot be done, said rather than passed over (kserve#5335)."""
    found = []
    for name, component in _components(service):
        if component.canary_traffic_percent is not None:
            message = f"has no effect: {NO_REVISION}; name canaries in spec.canary or in a TrafficPolicy"
            found.append(_warn(service, f"spec.{name}.canaryTrafficPercent", message))
    if service.spec.canary and entry == TRANSFORMER:
        message = "has no effect: the transformer calls the stable predictor by itself"
        found.append(_warn(service, "spec.canary", message))
    return found + ignored_fields.of_inference_service(service)


def _warn(service: InferenceService, field: str, message: str) -> Finding:
    return Finding(Origin(service.ref, field), Reason.FIELD_IGNORED, message)
