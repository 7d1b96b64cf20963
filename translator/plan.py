"""The intermediate representation: what a gateway is to do, in words of neither Kubernetes nor Envoy.

``ServicePlan > Host > Route > Split > Backend``, plain frozen data, every default filled in. Planners make it out of
objects, renderers turn it into messages; two equal plans give equal messages. Durations are whole milliseconds, 0 means
"no limit".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from translator.objects.ref import Origin, Ref

RETRY_AFTER = 5
"""Seconds a client is asked to wait when nothing is ready: about what a pod's readiness takes to show."""


class Protocol(Enum):
    """What a backend speaks.

    ``http2`` is whether it is HTTP/2, so that gRPC calls can be sent, and not HTTP/1.1; ``tls`` whether it goes by TLS,
    and not as plain text.
    """

    HTTP = "HTTP"
    H2C = "H2C"
    HTTPS = "HTTPS"
    HTTP2 = "HTTP2"

    def __init__(self, word: str) -> None:
        self.http2 = word in {"H2C", "HTTP2"}
        self.tls = word in {"HTTPS", "HTTP2"}

    @property
    def by_tls(self) -> Protocol:
        """The same HTTP by TLS."""
        return Protocol.HTTP2 if self.http2 else Protocol.HTTPS


class Comparison(Enum):
    """How a value is compared; a regular expression (RE2) matches the whole value."""

    EXACT = "Exact"
    PREFIX = "Prefix"
    REGEX = "RegularExpression"
    PRESENT = "Present"


@dataclass(frozen=True, slots=True)
class EndpointSource:
    """Where a backend's endpoints are found: a service and the name of its port (``""`` for an unnamed one)."""

    namespace: str
    service: str
    port: str


class Endpoint(NamedTuple):
    """An address that serves; ``zone`` is ``""`` where it is not known."""

    zone: str
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS towards a backend: ``hostname`` is sent as SNI, and looked for in its certificate.

    ``ca`` has the certificates of the authorities that are believed, as PEM; None are those in the file ``ca_file`` of
    the gateway's image. Without ``verify`` any certificate is taken.
    """

    hostname: str
    ca: str | None
    ca_file: str
    verify: bool = True


@dataclass(frozen=True, slots=True)
class Backend:
    """What can receive traffic; ``name`` is unique within its service.

    ``endpoints`` is where they are found, or the one that it has as long as it lives. ``preserve_case`` keeps the names
    of its answers' headers as the backend wrote them. ``tls`` is there exactly if its protocol goes by TLS.
    """

    name: str
    protocol: Protocol
    endpoints: EndpointSource | Endpoint
    connect_timeout: int
    origin: Origin
    preserve_case: bool = False
    tls: Tls | None = None


@dataclass(frozen=True, slots=True)
class Cookie:
    """Sticky by a cookie that the gateway sets; ``ttl`` in milliseconds, None for as long as the browser runs."""

    name: str
    ttl: int | None


@dataclass(frozen=True, slots=True)
class Header:
    """Sticky by a header that clients send; without it a request is split by weight."""

    name: str


Sticky = Cookie | Header


@dataclass(frozen=True, slots=True)
class Share:
    """A backend's part of a split; the weight counts relative to the other shares."""

    backend: str
    weight: int


@dataclass(frozen=True, slots=True)
class Split:
    """Where a route's requests go: at least one share, each of a weight above 0."""

    shares: tuple[Share, ...]
    sticky: Sticky | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that the gateway gives by itself.

    An error has a ``reason`` and a ``message`` too, for clients that read another form than the JSON ``body``.
    """

    status: int
    body: str = ""
    retry_after: int | None = None
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class PathMatch:
    """A condition on the path; ``PREFIX`` means whole path elements."""

    comparison: Comparison
    value: str


@dataclass(frozen=True, slots=True)
class ValueMatch:
    """A condition on a header, cookie or query parameter."""

    name: str
    comparison: Comparison
    value: str = ""


class Unsafe(Enum):
    """A request that model servers could read in another way than the gateway's rules.

    Two hosts, or user information before one; a method that is TRACE or not in upper case; an escaped control character
    in the path.
    """

    HOST = "host"
    METHOD = "method"
    PATH = "path"


@dataclass(frozen=True, slots=True)
class Match:
    """What a request must be for a route; all parts must hold, an empty one always does."""

    path: PathMatch | None = None
    method: str | None = None
    headers: tuple[ValueMatch, ...] = ()
    cookies: tuple[ValueMatch, ...] = ()
    query: tuple[ValueMatch, ...] = ()
    grpc: bool = False
    unsafe: Unsafe | None = None


@dataclass(frozen=True, slots=True)
class Timeouts:
    """``request`` until the whole answer is there; ``idle`` between two bytes of a stream."""

    request: int
    idle: int


@dataclass(frozen=True, slots=True)
class Route:
    """The first route of a host whose match holds serves a request.

    ``below`` is a path that its match begins with, and that backends do not see.
    """

    name: str
    match: Match
    action: Split | Reply
    timeouts: Timeouts
    origin: Origin
    max_request_bytes: int | None = None
    below: str = ""


@dataclass(frozen=True, slots=True)
class Host:
    """The routes for some host names; ``*`` stands for every name that no other host has.

    ``max_request_bytes`` of a request body are kept for retries, unless a route says another number.
    """

    name: str
    domains: tuple[str, ...]
    routes: tuple[Route, ...]
    request_headers: tuple[tuple[str, str], ...] = ()
    max_request_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """One service: the unit of planning and of failure. ``url`` is where KServe says that it is."""

    service: Ref
    gateway: str
    hosts: tuple[Host, ...]
    backends: tuple[Backend, ...]
    origin: Origin
    url: str = ""


@dataclass(frozen=True, slots=True)
class Router:
    """The router beside an Envoy: what it is told, and the port of loopback that it listens at."""

    model: str
    protocol: str
    max_concurrency: int
    overflow: str
    kv_endpoints: tuple[str, ...]
    port: int


Amounts = tuple[tuple[str, str], ...]
"""Quantities by resource, in one spelling each."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What a process may use."""

    requests: Amounts = ()
    limits: Amounts = ()


class Families(NamedTuple):
    """The IP families of a Service, the first its primary one, and its ``ipFamilyPolicy``; empty is not known."""

    families: tuple[str, ...] = ()
    policy: str = ""


@dataclass(frozen=True, slots=True)
class Pods:
    """What a gateway runs in, for whoever makes that: no Envoy is told. None leaves it to the operator.

    ``families`` are those that the gateway's own Service is to have; None are the cluster's own.
    """

    replicas: int | None = None
    resources: Resources | None = None
    router: Router | None = None
    families: Families | None = None


class Underscores(Enum):
    """The treatment of a header whose name has an underscore."""

    REJECT = "Reject"
    DROP = "Drop"
    ALLOW = "Allow"


class EscapedSlashes(Enum):
    """The treatment of ``%2F`` and ``%5C`` in a path."""

    REDIRECT = "Redirect"
    KEEP = "Keep"
    REJECT = "Reject"


@dataclass(frozen=True, slots=True)
class Edge:
    """The limits and leniency of a listener towards clients. Windows are in bytes."""

    http10: bool
    ignore_tls_upgrade: bool
    strip_trailing_dot: bool
    preserve_request_id: bool
    underscores: Underscores
    escaped_slashes: EscapedSlashes
    preserve_case: bool
    stream_window: int
    connection_window: int
    concurrent_streams: int
    request_timeout: int


@dataclass(frozen=True, slots=True)
class GatewayPlan:
    """One gateway: the unit of delivery. Only what is here may change its listener, and ``pods`` never does.

    ``default_host`` is whom an HTTP/1.0 request without a host means. ``name_backends``: answers about a failed backend
    name it and say how it failed.
    """

    name: str
    address: str
    port: int
    trusted_hops: int
    origin: Origin
    pods: Pods = Pods()
    edge: Edge = field(kw_only=True)
    default_host: str = field(default="", kw_only=True)
    name_backends: bool = field(default=False, kw_only=True)


class Reason(Enum):
    """Why something is not as the user wants it; the words of the conditions on Kubernetes."""

    INVALID = "Invalid"
    CONFLICTED = "Conflicted"
    TARGET_NOT_FOUND = "TargetNotFound"
    BACKEND_NOT_FOUND = "BackendNotFound"
    BACKEND_NOT_READY = "BackendNotReady"
    BACKEND_UNREACHABLE = "BackendUnreachable"
    REJECTED = "Rejected"
    REF_NOT_PERMITTED = "RefNotPermitted"
    INVALID_CA_CERTIFICATE_REF = "InvalidCACertificateRef"
    FIELD_IGNORED = "FieldIgnored"
    UNSUPPORTED_PROTOCOL = "UnsupportedProtocol"
    UNSUPPORTED_MODE = "UnsupportedMode"
    FAILED = "Failed"


class Condition(Enum):
    """The condition that a reason makes false; None of them is harmed by a warning."""

    ACCEPTED = "Accepted"
    RESOLVED_REFS = "ResolvedRefs"
    PROGRAMMED = "Programmed"


CONDITION_OF: dict[Reason, Condition | None] = {
    Reason.INVALID: Condition.ACCEPTED,
    Reason.CONFLICTED: Condition.ACCEPTED,
    Reason.TARGET_NOT_FOUND: Condition.ACCEPTED,
    Reason.BACKEND_NOT_FOUND: Condition.RESOLVED_REFS,
    Reason.BACKEND_NOT_READY: Condition.RESOLVED_REFS,
    Reason.REF_NOT_PERMITTED: Condition.RESOLVED_REFS,
    Reason.INVALID_CA_CERTIFICATE_REF: Condition.RESOLVED_REFS,
    Reason.BACKEND_UNREACHABLE: None,
    Reason.FIELD_IGNORED: None,
    Reason.UNSUPPORTED_PROTOCOL: None,
    Reason.UNSUPPORTED_MODE: Condition.PROGRAMMED,
    Reason.REJECTED: Condition.PROGRAMMED,
    Reason.FAILED: Condition.PROGRAMMED,
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as the user wants it: where it stands, and one line that says what is the matter."""

    origin: Origin
    reason: Reason
    message: str

    def __str__(self) -> str:
        return f"{self.origin.object}: {self.origin.field}: {self.message}"
