"""TrafficPolicy: who gets the requests to one service, and by what rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from translator.objects.base import Many, OurModel, Ours
from translator.objects.errors import show
from translator.objects.fields import (
    ConfigMapKey,
    CookieName,
    DnsLabel,
    DnsName,
    HeaderName,
    KvEndpoint,
    Milliseconds,
    ObjectName,
    PlainWord,
    PortNumber,
    PositiveMilliseconds,
)
from translator.objects.matches import Match
from translator.objects.quantity import BodyLimit
from translator.objects.ref import CORE, KSERVE, KUBEDL, XDSERVE, Ref
from translator.objects.refusal import Refusal, refuse_at, says

ServedKind = Literal["InferenceService", "Inference", "Service"]
_GROUP_OF_KIND: dict[ServedKind, str] = {"InferenceService": KSERVE, "Inference": KUBEDL, "Service": CORE}

LARGEST_MATCHES = 1 << 17
"""What a policy's conditions may come to: a gateway's routes are one message, made and sent as a whole."""

MOST_SHARES = 1 << 14
"""What the splits of a policy's rules may come to, for each match is a route with all of its rule's shares: making that
many takes half a second, in which no other gateway is served."""

# What a route may have, in a policy and in each of its rules alike.
_NOT_YET_OF_ROUTES = frozenset({
    "mirror", "retries", "concurrency", "rateLimits", "outlierDetection", "healthCheck", "loadBalancing", "faults",
    "rewrite", "redirect", "requestHeaders", "responseHeaders",
})  # fmt: skip


class TargetRef(OurModel):
    """What a policy or gateway is for; it is in the namespace of the object that names it."""

    group: str = CORE
    """`serving.kserve.io`, `serving.kubedl.io`, or empty for a core Service."""
    kind: ServedKind
    """What kind of object the target is."""
    name: ObjectName
    """The target's name; it is in the namespace of this object."""

    @model_validator(mode="after")
    def _group_fits_kind(self) -> Self:
        _check_group(self.group, self.kind)
        return self

    def ref(self, namespace: str) -> Ref:
        """The target, for an object in ``namespace``."""
        return Ref(self.group, self.kind, namespace, self.name)


class BackendRef(OurModel):
    """``namespace`` None is the policy's own; ``section_name`` is a component, canary or predictor."""

    NOT_YET_VALUES: ClassVar[Mapping[str, frozenset[str]]] = {"kind": frozenset({"Hostname"})}

    group: str = CORE
    """`serving.kserve.io`, `serving.kubedl.io`, or empty for a core Service."""
    kind: ServedKind = "Service"
    """What kind of object it is."""
    name: ObjectName
    """The object's name."""
    namespace: DnsLabel | None = None
    """Its namespace; left out, the policy's own. Another one needs a ReferenceGrant."""
    port: PortNumber | None = None
    """The Service's port, by number; for kind Service alone, which needs it."""
    section_name: DnsLabel | None = None
    """A part of an InferenceService (`predictor`, `transformer`, `explainer` or a canary) or of an Inference (a
    predictor); left out, where the object's own requests enter."""

    @model_validator(mode="after")
    def _fits_kind(self) -> Self:
        _check_group(self.group, self.kind)
        if self.kind != "Service":
            if self.port is not None:
                refuse_at(Refusal(("port",), self.port, "no port: it is for kind Service alone"))
        elif self.port is None:
            refuse_at(Refusal(("port",), None, "a value"))
        elif self.section_name is not None:
            refuse_at(Refusal(("sectionName",), self.section_name, "no section of a Service"))
        return self

    def ref(self, namespace: str) -> Ref:
        """What is named, by a policy in ``namespace``."""
        return Ref(self.group, self.kind, self.namespace or namespace, self.name)


def _check_group(group: str, kind: ServedKind) -> None:
    expected = _GROUP_OF_KIND[kind]
    if group != expected:
        refuse_at(Refusal(("group",), group, f"{show(expected)} for kind {kind}"))


class CaRef(OurModel):
    """Where the certificates of authorities are; the ConfigMap is in the policy's namespace."""

    kind: Literal["ConfigMap"] = "ConfigMap"
    """What kind of object it is."""
    name: ObjectName
    """The ConfigMap's name; it is in the policy's namespace."""
    key: ConfigMapKey = "ca.crt"
    """The key of its `data` that has the certificates (PEM), 512 KiB of them at most."""


class BackendTls(OurModel):
    """What is expected of a backend's certificate."""

    hostname: DnsName | None = None
    """The name that is asked for (SNI) and that the certificate must have; left out, `<service>.<namespace>.svc`."""
    ca_ref: CaRef | None = None
    """The authorities that are believed; left out, the public ones of the gateway's image. While it cannot be read, the
    backend answers 503."""
    insecure_skip_verify: bool = False
    """Take any certificate: whoever is in between can read and change all. For trials."""

    @model_validator(mode="after")
    def _verified_or_not(self) -> Self:
        if self.insecure_skip_verify and self.ca_ref is not None:
            refuse_at(Refusal(("caRef",), None, "none beside insecureSkipVerify: true", "a caRef"))
        return self


class Backend(OurModel):
    """A name for what can receive traffic; ``protocol`` None is told by the port."""

    name: DnsLabel
    """What splits call it. A name that the target has already is replaced."""
    ref: BackendRef
    """What receives the traffic."""
    protocol: Literal["HTTP", "H2C", "HTTPS", "HTTP2"] | None = None
    """What it speaks: `HTTP` (HTTP/1.1) and `H2C` (HTTP/2) in plain text, `HTTPS` (HTTP/1.1) and `HTTP2` (HTTP/2) by
    TLS. Left out, the port's appProtocol or name says it."""
    tls: BackendTls | None = None
    """How it is spoken to by TLS; where this is given, it is never spoken to in plain text."""
    when_unready: Literal["Redistribute", "Fail"] = "Redistribute"
    """What becomes of its share while none of its endpoints is ready: `Redistribute` gives it to the rest of the
    split, `Fail` keeps it and answers 503."""

    @model_validator(mode="after")
    def _speaks_tls(self) -> Self:
        if self.tls is not None and self.protocol in {"HTTP", "H2C"}:
            refuse_at(Refusal(("protocol",), self.protocol, "HTTPS or HTTP2 beside tls"))
        return self


class Share(OurModel):
    """One backend's part of a split; ``priority`` 1 and up are fallbacks."""

    backend: DnsLabel
    """The name of a backend."""
    weight: Annotated[int, Field(ge=0, le=1_000_000), says("0..1000000")] = 1
    """Its part, relative to the other weights; 0 gets nothing."""
    priority: Annotated[int, Field(ge=0, le=7), says("0..7")] = 0
    """Used only while nothing of a lower number is ready."""


class CookieSticky(OurModel):
    """``ttl`` in milliseconds; None is a cookie of the browser's session."""

    by: Literal["Cookie"]
    """A cookie that the gateway sets with the first answer."""
    name: CookieName = "xdserve"
    """The cookie's name."""
    ttl: PositiveMilliseconds | None = None
    """How long the browser keeps it; left out, for its session."""


class HeaderSticky(OurModel):
    """Requests with an equal header meet the same backend; ``name`` is lower case."""

    by: Literal["Header"]
    """A header that clients send; without it a request is split by weight."""
    name: HeaderName
    """The header's name."""


Sticky = Annotated[CookieSticky | HeaderSticky, Field(discriminator="by")]


class RouteTimeouts(OurModel):
    """In milliseconds, 0 is no limit, None is not said here."""

    request: Milliseconds | None = None
    """From the end of the request to the end of the answer; 0s, the default, never cuts an answer that streams."""
    idle: Milliseconds | None = None
    """Between two bytes of a stream, either way; 0s for no limit. Left out everywhere: 5m, or the request timeout where
    that is longer. So with `request: 0s` a model that is silent for 5m is cut."""


class Buffer(OurModel):
    """None is not said here."""

    max_request_bytes: BodyLimit | None = None
    """How much of a request body the gateway keeps to send it again to another endpoint; 16Mi by default, 1Mi at least.
    A longer body streams through and is sent once."""


class Timeouts(RouteTimeouts):
    """``connect`` is the backends', so rules do not have it."""

    connect: PositiveMilliseconds | None = None
    """To connect to an endpoint; 2s by default."""


def _each_backend_once(split: tuple[Share, ...]) -> tuple[Share, ...]:
    _each_once("backend", (share.backend for share in split))
    return split


def _each_once(field: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    again: list[Refusal] = []
    for index, name in enumerate(names):
        if name in seen:
            again.append(Refusal((index, field), name, f"each {field} once"))
        seen.add(name)
    if again:
        refuse_at(*again)


def _each_backend_name_once(backends: tuple[Backend, ...]) -> tuple[Backend, ...]:
    _each_once("name", (backend.name for backend in backends))
    return backends


Split = Annotated[Many[Share], Field(max_length=64), AfterValidator(_each_backend_once)]


class Router(OurModel):
    """The router beside the gateway's Envoy, and what it is told; ``model_ref`` None is the target's name."""

    model_ref: PlainWord | None = None
    """Name of the model, as its server knows it; left out, the target's name."""
    protocol: Literal["v1", "v2", "openai"] = "v1"
    """How the model server is spoken to: KServe v1, the open inference protocol (v2), OpenAI."""
    max_concurrency: Annotated[int, Field(ge=1, le=1_000_000), says("1..1000000")] = 10
    """Requests of `/infer` that run at once, at most, in each pod of the gateway."""
    overflow: Literal["queue", "reject"] = "queue"
    """What happens to a request beyond `maxConcurrency`: it waits in order, or is refused (429)."""
    kv_endpoints: Annotated[Many[KvEndpoint], Field(max_length=64)] = ()
    """Endpoints of key-value caches, named in each answer of `/infer`."""


class Rule(OurModel):
    """Any of ``matches``, or every request without them; what it does not say the policy says."""

    # There is one router in a pod, so none of a rule's own.
    NOT_YET_FIELDS: ClassVar[frozenset[str]] = _NOT_YET_OF_ROUTES | {"router"}
    NOT_YET_VALUES: ClassVar[Mapping[str, frozenset[str]]] = {"sticky": frozenset({"SourceIP"})}

    name: DnsLabel
    """The rule's name, once in the policy."""
    matches: Annotated[Many[Match], Field(max_length=64)] = ()
    """The rule serves a request that any of them matches; without any, every request."""
    split: Split = ()
    """Who gets the requests; left out, as the policy's split."""
    sticky: Sticky | None = None
    """Left out, the policy's."""
    timeouts: RouteTimeouts = RouteTimeouts()
    """Each one left out is the policy's."""
    buffer: Buffer = Buffer()
    """Left out, the policy's."""


def _each_rule_once(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    _each_once("name", (rule.name for rule in rules))
    return rules


class TrafficPolicySpec(OurModel):
    """Rules in order, the first that matches wins; then ``split``, and without it the target's own."""

    NOT_YET_FIELDS: ClassVar[frozenset[str]] = _NOT_YET_OF_ROUTES
    NOT_YET_VALUES: ClassVar[Mapping[str, frozenset[str]]] = {"sticky": frozenset({"SourceIP"})}

    target_ref: TargetRef
    """The service that this is for. Of two policies on one target the older counts."""
    backends: Annotated[Many[Backend], Field(max_length=64), AfterValidator(_each_backend_name_once)] = ()
    """Names for what can receive traffic, beside those that the target has: an InferenceService `predictor`,
    `transformer`, `explainer` and the name of each canary; an Inference its predictors; a Service its own name."""
    split: Split = ()
    """The default route: who gets what no rule matches. Left out, the target's own split."""
    sticky: Sticky | None = None
    """How a client stays with the backend that it met first."""
    rules: Annotated[Many[Rule], Field(max_length=256), AfterValidator(_each_rule_once)] = ()
    """In order; the first that matches serves the request."""
    timeouts: Timeouts = Timeouts()
    """For all routes; where `request` is left out, a component's own `timeout` counts."""
    buffer: Buffer = Buffer()
    """Of request bodies, for all routes."""
    router: Router | None = None
    """Gives `POST /infer` to a router beside each Envoy of the gateway; its calls to the model come back through the
    gateway, so that rules and split hold for them."""

    @model_validator(mode="after")
    def _is_not_endless(self) -> Self:
        size = sum(match.size for rule in self.rules for match in rule.matches)
        if size > LARGEST_MATCHES:
            allowed = f"matches of {LARGEST_MATCHES} characters in all, 64 for each condition included"
            refuse_at(Refusal(("rules",), None, allowed, f"{size} characters"))
        shares = sum(max(1, len(rule.matches)) * len(rule.split or self.split) for rule in self.rules)
        if shares > MOST_SHARES:
            allowed = f"splits of {MOST_SHARES} shares in all, each counted once for every match of its rule"
            refuse_at(Refusal(("rules",), None, allowed, f"{shares} shares"))
        return self


class TrafficPolicy(Ours):
    """``xdserve.io/v1alpha1`` TrafficPolicy."""

    GROUP: ClassVar[str] = XDSERVE
    VERSION: ClassVar[str] = "v1alpha1"
    KIND: ClassVar[str] = "TrafficPolicy"

    spec: TrafficPolicySpec
