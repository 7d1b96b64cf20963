"""What every front end makes of its object: a target, which policies are then applied to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from translator import names
from translator.objects.ref import Origin, Ref
from translator.plan import Backend, EndpointSource, Finding, Protocol, Reason, Tls
from translator.planners.components import ActiveComponents
from translator.planners.endpoints import SERVICE_STATE, PortOf, PortState, ServiceState, Unusable
from translator.planners.tls import DEFAULT_TRUST, MOST_CA_BYTES_OF_SERVICE, NoCa, Trust, ca_of
from translator.view import View


@dataclass(frozen=True, slots=True)
class Candidate:
    """A backend before anyone has looked whether it exists.

    ``protocol`` and ``trust`` are what a policy says of it; with ``trust`` it is spoken to by TLS, whatever its ports
    say.
    ``grpc`` is where gRPC goes if the Service itself has no port for it; ``ready`` is what a status says of it,
    ``exists`` is False if it is known that there is nothing to look up, and ``keeps_share`` says that its share is
    answered with 503 rather than given to the others while it is not ready. ``meanwhile`` says where requests go until
    it was ready once.
    """

    name: str
    port: PortOf
    origin: Origin
    protocol: Protocol | None = None
    trust: Trust | None = None
    grpc: PortOf | None = None
    ready: bool = True
    exists: bool = True
    keeps_share: bool = False
    meanwhile: str = ""

    @property
    def by_tls(self) -> bool:
        """Whether a policy says that it is spoken to by TLS."""
        return self.trust is not None or (self.protocol is not None and self.protocol.tls)


@dataclass(frozen=True, slots=True)
class Variant:
    """A backend that exists; ``grpc`` is the backend itself unless its gRPC has a port of its own.

    ``unready`` is why no endpoint of its main port serves.
    """

    backend: Backend
    ready: bool
    grpc: Backend
    grpc_ready: bool
    keeps_share: bool = False
    exists: bool = True
    unready: str = ""

    @property
    def speaks_grpc(self) -> bool:
        """True if gRPC calls can be sent to it; also if it does not exist yet, so that nobody knows."""
        return self.grpc.protocol.http2 or not self.exists

    @property
    def ca_bytes(self) -> int:
        """How many bytes of certificates its clusters carry."""
        made = (self.backend,) if self.grpc is self.backend else (self.backend, self.grpc)
        return sum(len(one.tls.ca) for one in made if one.tls and one.tls.ca)


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
class Addresses:
    """What a service is called by: ``outside`` and ``inside`` the cluster, and ``short`` in its own namespace.

    Below ``path`` it is served at the host ``path_host``, which it shares with others; both are empty for none. ``url``
    is the address that KServe gives out.
    """

    outside: str
    inside: tuple[str, ...]
    short: tuple[str, ...]
    path_host: str
    path: str
    url: str

    @property
    def all(self) -> tuple[str, ...]:
        """Every host that is its own."""
        return self.outside, *self.inside, *self.short


@dataclass(frozen=True, slots=True)
class Target:
    """A service as its own fields have it, without any policy; ``unserved`` says why it gets no gateway."""

    ref: Ref
    candidates: Mapping[str, Candidate]
    entry: str
    split: tuple[Weighted, ...]
    addresses: Addresses
    split_origin: Origin
    components: tuple[Component, ...] = ()
    explainer: str | None = None
    request_timeout: int | None = None
    request_headers: tuple[tuple[str, str], ...] = ()
    cluster_local: bool = False
    stopped: bool = False
    unserved: Finding | None = None
    findings: tuple[Finding, ...] = ()
    active: ActiveComponents | None = None


@dataclass(frozen=True, slots=True)
class Resolved:
    """Candidates looked up: those that exist, and what is the matter with the others."""

    variants: dict[str, Variant] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def resolve(view: View, candidates: Mapping[str, Candidate], connect_timeout: int, ca_file: str) -> Resolved:
    """Look up every candidate; one that does not exist or is not ready is a finding."""
    resolved, carried = Resolved(), 0
    for candidate in candidates.values():
        found = variant(view, candidate, connect_timeout, ca_file) if candidate.exists else None
        if isinstance(found, Variant) and found.ca_bytes:
            carried += found.ca_bytes
            found = found if carried <= MOST_CA_BYTES_OF_SERVICE else _TOO_MANY
        if isinstance(found, Variant):
            resolved.variants[candidate.name] = found
            if not found.ready:
                resolved.findings.append(_not_ready(candidate, found))
            continue
        if isinstance(found, NoCa):
            resolved.findings.append(_no_ca(candidate, found))
        elif found is not None:
            message = _also(candidate, found.message)
            resolved.findings.append(Finding(candidate.origin, Reason.BACKEND_NOT_FOUND, message))
        # It is never spoken to without the TLS that was asked for, and its share is nobody else's.
        if candidate.keeps_share or isinstance(found, NoCa):
            resolved.variants[candidate.name] = _nowhere(candidate, connect_timeout)
    return resolved


_TOO_MANY = NoCa(f"the backends up to this one carry more than {MOST_CA_BYTES_OF_SERVICE} bytes of CAs")


def _not_ready(candidate: Candidate, found: Variant) -> Finding:
    said = found.unready if candidate.ready else "is not ready by the status of its object"
    message = _also(candidate, f"backend {candidate.name} ({candidate.port.ref}) {said}")
    return Finding(candidate.origin, Reason.BACKEND_NOT_READY, message)


def _also(candidate: Candidate, message: str) -> str:
    return f"{message}; {candidate.meanwhile}" if candidate.meanwhile else message


def _no_ca(candidate: Candidate, found: NoCa) -> Finding:
    origin = Origin(candidate.origin.object, candidate.origin.field.removesuffix(".ref") + ".tls.caRef")
    message = f"{found.message}: backend {candidate.name} answers 503"
    return Finding(origin, Reason.INVALID_CA_CERTIFICATE_REF, message)


def is_ready(view: View, candidate: Candidate) -> bool:
    """Whether a candidate exists and can serve."""
    state = view.derive(SERVICE_STATE, candidate.port)
    return candidate.ready and not isinstance(state, Unusable) and state.main.ready


def variant(view: View, candidate: Candidate, connect_timeout: int, ca_file: str) -> Variant | Unusable | NoCa:
    """Look up one candidate."""
    state = view.derive(SERVICE_STATE, candidate.port)
    if isinstance(state, Unusable):
        return state
    ca = ca_of(view, candidate.trust)
    if isinstance(ca, NoCa):
        return ca
    made = _Backends(candidate, connect_timeout, ca, ca_file)
    main = made.backend(candidate.name, state.main, candidate.protocol or state.main.protocol)
    ready, unready = candidate.ready and state.main.ready, state.main.unready
    port = _grpc(view, candidate, state, main)
    if port is None:
        return Variant(main, ready, main, ready, candidate.keeps_share, unready=unready)
    grpc = made.backend(names.grpc_backend(candidate.name), port, port.protocol)
    return Variant(main, ready, grpc, candidate.ready and port.ready, candidate.keeps_share, unready=unready)


def _grpc(view: View, candidate: Candidate, state: ServiceState, main: Backend) -> PortState | None:
    """The port for gRPC, where it is another one.

    A policy that says TLS of the backend alone (no ``trust``) does not mean a gRPC port that speaks plain text.
    """
    found = state.grpc or _borrowed(view, candidate, main)
    only_tls = candidate.trust is None and candidate.by_tls
    return None if found is not None and only_tls and not found.protocol.tls else found


def _borrowed(view: View, candidate: Candidate, main: Backend) -> PortState | None:
    if candidate.grpc is None or main.protocol.http2:
        return None
    state = view.derive(SERVICE_STATE, candidate.grpc)
    if isinstance(state, Unusable):
        return None
    return state.grpc or (state.main if state.main.protocol.http2 else None)


def _nowhere(candidate: Candidate, connect_timeout: int) -> Variant:
    """Stands for a backend that does not exist and keeps its share all the same: it has no endpoints."""
    nobody = EndpointSource(candidate.port.namespace, service="", port="")
    origin = candidate.origin
    backend = Backend(candidate.name, Protocol.HTTP, nobody, connect_timeout, origin)
    return Variant(backend, ready=False, grpc=backend, grpc_ready=False, keeps_share=True, exists=False)


class _Backends(NamedTuple):
    """What the backends of a candidate have in common."""

    candidate: Candidate
    connect_timeout: int
    ca: str | None
    ca_file: str

    def backend(self, name: str, port: PortState, protocol: Protocol) -> Backend:
        """A port as a backend."""
        speaks = protocol.by_tls if self.candidate.trust else protocol
        tls = self._tls(port.source) if speaks.tls else None
        return Backend(name, speaks, port.source, self.connect_timeout, self.candidate.origin, tls=tls)

    def _tls(self, source: EndpointSource) -> Tls:
        """Without a word on it the name is that of certificates made for a Service, as OpenShift makes them."""
        trust = self.candidate.trust or DEFAULT_TRUST
        return Tls(trust.hostname or f"{source.service}.{source.namespace}.svc", self.ca, self.ca_file, trust.verify)
