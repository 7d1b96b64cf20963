"""Which components of an InferenceService requests reach: one that is added gets them once it was ready.

KServe makes a component minutes before it can answer. So what is active is remembered from plan to plan, and changes
when what the spec says can take over. Then it stays: a component that fails later is an outage, not an addition.
"""

from __future__ import annotations

from translator.objects.kserve import InferenceService
from translator.objects.ref import Origin
from translator.plan import Finding, Reason
from translator.planners.components import EXPLAINER, PREDICTOR, TRANSFORMER, ActiveComponents, Before, Unknown
from translator.planners.endpoints import SERVICE_STATE, PortOf, Unusable
from translator.planners.target import Candidate, is_ready
from translator.view import View


def wanted(service: InferenceService) -> ActiveComponents:
    """What is active once all components are ready."""
    spec = service.spec
    return ActiveComponents(
        entry=PREDICTOR if spec.transformer is None else TRANSFORMER,
        predictor=predictor_service(service, spec.predictor.name),
        explainer=spec.explainer is not None,
    )


def active(view: View, service: InferenceService, before: Before) -> ActiveComponents:
    """What is active now.

    A new service is what its spec says: its predictor never gets requests that its transformer was to change.
    """
    new = wanted(service)
    # Of what is stopped nothing is live, and KServe removes the Services.
    if before == new or before is Unknown.NEW or service.stopped:
        return new
    return _by_readiness(view, service, new) if before is Unknown.RESTARTED else _by_turns(view, service, before, new)


def _by_turns(
    view: View, service: InferenceService, before: ActiveComponents, new: ActiveComponents
) -> ActiveComponents:
    """Each part changes by itself, when what is to come is ready, or there is no Service of what was."""
    of_old, of_new = (candidate(service, PREDICTOR, name) for name in (before.predictor, new.predictor))
    predictor = new.predictor if _takes_over(view, of_new, of_old) else before.predictor
    left, entered = (candidate(service, name, predictor) for name in (before.entry, new.entry))
    entry = new.entry if _takes_over(view, entered, left) else before.entry
    explains = new.explainer and (before.explainer or _is_ready(view, service, EXPLAINER))
    return ActiveComponents(entry, predictor, explains)


def _takes_over(view: View, new: Candidate, old: Candidate) -> bool:
    return new == old or is_ready(view, new) or isinstance(view.derive(SERVICE_STATE, old.port), Unusable)


def _by_readiness(view: View, service: InferenceService, new: ActiveComponents) -> ActiveComponents:
    """What may have been active all the time: all that KServe says was ready, or that is ready now.

    Anything else is taken to be added, if there is something else that serves.
    """
    predictor, unnamed = new.predictor, predictor_service(service, None)
    if predictor != unnamed and not _is_ready(view, service, PREDICTOR, predictor):
        predictor = unnamed if _is_ready(view, service, PREDICTOR, unnamed) else predictor
    entry = new.entry
    if entry != PREDICTOR and not _was_ready(view, service, entry) and _is_ready(view, service, PREDICTOR, predictor):
        entry = PREDICTOR
    explains = new.explainer and (
        _was_ready(view, service, EXPLAINER) or not _is_ready(view, service, entry, predictor)
    )
    return ActiveComponents(entry, predictor, explains)


def _was_ready(view: View, service: InferenceService, name: str) -> bool:
    return name in service.status.ready_components or _is_ready(view, service, name)


def _is_ready(view: View, service: InferenceService, name: str, predictor: str = "") -> bool:
    return is_ready(view, candidate(service, name, predictor))


def candidate(service: InferenceService, name: str, predictor: str) -> Candidate:
    """A component as a backend; ``predictor`` is the Service of the predictor, which also has a transformer's gRPC."""
    own = port_of(service, predictor)
    origin = Origin(service.ref, f"spec.{name}")
    if name == PREDICTOR:
        return Candidate(name, own, origin)
    grpc = own if name == TRANSFORMER else None
    return Candidate(name, port_of(service, f"{service.ref.name}-{name}"), origin, grpc=grpc)


def port_of(service: InferenceService, name: str) -> PortOf:
    """Before the pods of Open Data Hub's authenticated services stands a proxy, which takes TLS alone."""
    return PortOf(service.ref.namespace, name, None, tls=service.authenticated)


def predictor_service(service: InferenceService, name: str | None) -> str:
    """The Service that KServe makes: ``<isvc>-predictor``, or ``<isvc>-<name>-predictor`` of a named one."""
    return f"{service.ref.name}-{name}-predictor" if name else f"{service.ref.name}-predictor"


def waiting(service: InferenceService, now: ActiveComponents, new: ActiveComponents) -> list[Finding]:
    """The predictor that has another name and is not ready yet: it is no backend until then."""
    if new.predictor == now.predictor:
        return []
    ref = candidate(service, PREDICTOR, new.predictor).port.ref
    message = f"{ref} is not ready yet; requests still go to Service {ref.namespace}/{now.predictor}"
    return [Finding(Origin(service.ref, "spec.predictor"), Reason.BACKEND_NOT_READY, message)]
