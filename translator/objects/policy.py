"""TrafficPolicy: who gets the requests to one service, and by what rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from translator.objects.base import Many, OurModel, Ours
from translator.objects.errors import show
from translator.objects.fields import (
    CookieName,
    DnsLabel,
    HeaderName,
    Milliseconds,
    ObjectName,
    PortNumber,
    PositiveMilliseconds,
)
from translator.objects.matches import Match
from translator.objects.ref import CORE, KSERVE, KUBEDL, XDSERVE, Ref
from translator.objects.refusal import Refusal, refuse_at, says

ServedKind = Literal["InferenceService", "Inference", "Service"]
_GROUP_OF_KIND: dict[ServedKind, str] = {"InferenceService": KSERVE, "Inference": KUBEDL, "Service": CORE}

# What a route may have, in a policy and in each of its rules alike.
_NOT_YET_OF_ROUTES = frozenset({
    "mirror", "retries", "concurrency", "rateLimits", "outlierDetection", "healthCheck", "loadBalancing", "faults",
    "buffer", "router", "rewrite", "redirect", "requestHeaders", "responseHeaders",
})  # fmt: skip


class TargetRef(OurModel):
    """What a policy or gateway is for; it is in the namespace of the object that names it."""

    group: str = CORE
    kind: ServedKind
    name: ObjectName

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
    kind: ServedKind = "Service"
    name: ObjectName
    namespace: DnsLabel | None = None
    port: PortNumber | None = None
    section_name: DnsLabel | None = None

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


class Backend(OurModel):
    """A name for what can receive traffic; ``protocol`` None is told by the port."""

    NOT_YET_VALUES: ClassVar[Mapping[str, frozenset[str]]] = {"protocol": frozenset({"HTTPS", "HTTP2"})}

    name: DnsLabel
    ref: BackendRef
    protocol: Literal["HTTP", "H2C"] | None = None
    when_unready: Literal["Redistribute", "Fail"] = "Redistribute"


class Share(OurModel):
    """One backend's part of a split; ``priority`` 1 and up are fallbacks."""

    backend: DnsLabel
    weight: Annotated[int, Field(ge=0, le=1_000_000), says("0..1000000")] = 1
    priority: Annotated[int, Field(ge=0, le=7), says("0..7")] = 0


class CookieSticky(OurModel):
    """``ttl`` in milliseconds; None is a cookie of the browser's session."""

    by: Literal["Cookie"]
    name: CookieName = "xdserve"
    ttl: PositiveMilliseconds | None = None


class HeaderSticky(OurModel):
    """Requests with an equal header meet the same backend; ``name`` is lower case."""

    by: Literal["Header"]
    name: HeaderName


Sticky = Annotated[CookieSticky | HeaderSticky, Field(discriminator="by")]


class RouteTimeouts(OurModel):
    """In milliseconds, 0 is no limit, None is not said here."""

    request: Milliseconds | None = None
    idle: Milliseconds | None = None


class Timeouts(RouteTimeouts):
    """``connect`` is the backends', so rules do not have it."""

    connect: PositiveMilliseconds | None = None


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


class Rule(OurModel):
    """Any of ``matches``, or every request without them; what it does not say the policy says."""

    NOT_YET_FIELDS: ClassVar[frozenset[str]] = _NOT_YET_OF_ROUTES
    NOT_YET_VALUES: ClassVar[Mapping[str, frozenset[str]]] = {"sticky": frozenset({"SourceIP"})}

    name: DnsLabel
    matches: Annotated[Many[Match], Field(max_length=64)] = ()
    split: Split = ()
    sticky: Sticky | None = None
    timeouts: RouteTimeouts = RouteTimeouts()


def _each_rule_once(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    _each_once("name", (rule.name for rule in rules))
    return rules


class TrafficPolicySpec(OurModel):
    """Rules in order, the first that matches wins; then ``split``, and without it the target's own."""

    NOT_YET_FIELDS: ClassVar[frozenset[str]] = _NOT_YET_OF_ROUTES
    NOT_YET_VALUES: ClassVar[Mapping[str, frozenset[str]]] = {"sticky": frozenset({"SourceIP"})}

    target_ref: TargetRef
    backends: Annotated[Many[Backend], Field(max_length=64), AfterValidator(_each_backend_name_once)] = ()
    split: Split = ()
    sticky: Sticky | None = None
    rules: Annotated[Many[Rule], Field(max_length=256), AfterValidator(_each_rule_once)] = ()
    timeouts: Timeouts = Timeouts()


class TrafficPolicy(Ours):
    """``xdserve.io/v1alpha1`` TrafficPolicy."""

    GROUP: ClassVar[str] = XDSERVE
    VERSION: ClassVar[str] = "v1alpha1"
    KIND: ClassVar[str] = "TrafficPolicy"

    spec: TrafficPolicySpec
