"""What every front end makes of its object: a target, which policies are then applied to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from translator import names
from translator.objects.ref import Origin, Ref
from translator.plan import Backend, EndpointSource, Finding, Protocol, Reason
from translator.planners.components import ActiveComponents
from translator.planners.endpoints import SERVICE_STATE, PortOf, PortState, Unusable
from translator.view import View


@dataclass(frozen=True, slots=True)
class Candidate:
    """A backend before anyone has looked whether it exists.

    ``grpc`` is where gRPC goes if the Service itself has no port for it; ``ready`` is what a status says of it,
    ``exists`` is False if it is known that there is nothing to look up, and ``keeps_share`` says that its share is
    answered with 503 rather than given to the others while it is not ready. ``meanwhile`` says where requests go until
    it was ready once.
    """

    name: str
    port: PortOf
    origin: Origin
    protocol: Protocol | None = None
    grpc: PortOf | None = None
    ready: bool = True
    exists: bool = True
    keeps_share: bool = False
    meanwhile: str = ""


@dataclass(frozen=True, slots=True)
class Variant:
    """A backend that exists; ``grpc`` is the backend itself unless its gRPC has a port of its own."""

    backend: Backend
    ready: bool
    grpc: Backend
    grpc_ready: bool
    keeps_share: bool = False
    exists: bool = True

    @property
    def speaks_grpc(self) -> bool:
        """True if gRPC calls can be sent to it; also if it does not exist yet, so that nobody knows."""
        return self.grpc.protocol is Protocol.H2C or not self.exists


@dataclass(frozen=True, slots=True)
class Weighted:
    """A share as it is written; ``priority`` 1 is used only when nothing of priority 0 is ready."""

    backend: str
    weight: int
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Component:
    """A part of a service that can be reached under host names of its own, with a timeout of its own."""

    name: str
    hosts: tuple[str, ...]
    request_timeout: int | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """A service as its own fields have it, without any policy."""

    ref: Ref
    candidates: Mapping[str, Candidate]
    entry: str
    split: tuple[Weighted, ...]
    outside: tuple[str, ...]
    inside: tuple[str, ...]
    split_origin: Origin
    components: tuple[Component, ...] = ()
    explainer: str | None = None
    request_timeout: int | None = None
    request_headers: tuple[tuple[str, str], ...] = ()
    cluster_local: bool = False
    stopped: bool = False
    findings: tuple[Finding, ...] = ()
    active: ActiveComponents | None = None


@dataclass(frozen=True, slots=True)
class Resolved:
    """Candidates looked up: those that exist, and what is the matter with the others."""

    variants: dict[str, Variant] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def resolve(view: View, candidates: Mapping[str, Candidate], connect_timeout: int) -> Resolved:
    """Look up every candidate; one that does not exist or is not ready is a finding."""
    resolved = Resolved()
    for candidate in candidates.values():
        found = variant(view, candidate, connect_timeout) if candidate.exists else None
        if isinstance(found, Variant):
            resolved.variants[candidate.name] = found
            if not found.ready:
                resolved.findings.append(_not_ready(candidate))
            continue
        if found is not None:
            resolved.findings.append(
                Finding(candidate.origin, Reason.BACKEND_NOT_FOUND, _also(candidate, found.message))
            )
        if candidate.keeps_share:
            resolved.variants[candidate.name] = _nowhere(candidate, connect_timeout)
    return resolved


def _not_ready(candidate: Candidate) -> Finding:
    said = "has no ready endpoint" if candidate.ready else "is not ready by the status of its object"
    message = _also(candidate, f"backend {candidate.name} ({candidate.port.ref}) {said}")
    return Finding(candidate.origin, Reason.BACKEND_NOT_READY, message)


def _also(candidate: Candidate, message: str) -> str:
    return f"{message}; {candidate.meanwhile}" if candidate.meanwhile else message


def is_ready(view: View, candidate: Candidate) -> bool:
    """Whether a candidate exists and can serve."""
    state = view.derive(SERVICE_STATE, candidate.port)
    return candidate.ready and not isinstance(state, Unusable) and state.main.ready


def variant(view: View, candidate: Candidate, connect_timeout: int) -> Variant | Unusable:
    """Look up one candidate."""
    state = view.derive(SERVICE_STATE, candidate.port)
    if isinstance(state, Unusable):
        return state
    main = _backend(candidate, candidate.name, state.main, candidate.protocol, connect_timeout)
    ready = candidate.ready and state.main.ready
    port = state.grpc or _borrowed(view, candidate, main)
    if port is None:
        return Variant(main, ready, main, ready, candidate.keeps_share)
    grpc = _backend(candidate, names.grpc_backend(candidate.name), port, Protocol.H2C, connect_timeout)
    return Variant(main, ready, grpc, candidate.ready and port.ready, candidate.keeps_share)


def _nowhere(candidate: Candidate, connect_timeout: int) -> Variant:
    """Stands for a backend that does not exist and keeps its share all the same: it has no endpoints."""
    nobody = EndpointSource(candidate.port.namespace, service="", port="")
    port = PortState(nobody, Protocol.HTTP, ready=False)
    backend = _backend(candidate, candidate.name, port, candidate.protocol, connect_timeout)
    return Variant(backend, ready=False, grpc=backend, grpc_ready=False, keeps_share=True, exists=False)


def _borrowed(view: View, candidate: Candidate, main: Backend) -> PortState | None:
    if candidate.grpc is None or main.protocol is Protocol.H2C:
        return None
    state = view.derive(SERVICE_STATE, candidate.grpc)
    if isinstance(state, Unusable):
        return None
    return state.grpc or (state.main if state.main.protocol is Protocol.H2C else None)


def _backend(
    candidate: Candidate, name: str, port: PortState, protocol: Protocol | None, connect_timeout: int
) -> Backend:
    return Backend(
        name=name,
        protocol=protocol or port.protocol,
        endpoints=port.source,
        connect_timeout=connect_timeout,
        origin=candidate.origin,
    )
