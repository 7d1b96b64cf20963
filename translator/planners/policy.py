"""What a TrafficPolicy makes of a target: its backends looked up, its rules and splits checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from translator.objects.fields import HEADERS_OF_PROXIES
from translator.objects.kserve import InferenceService
from translator.objects.kubedl import Inference
from translator.objects.matches import CookieMatch, HeaderMatch, Match, QueryParamMatch
from translator.objects.matches import PathMatch as PathSpec
from translator.objects.paths import canonical
from translator.objects.policy import (
    Backend,
    Buffer,
    CookieSticky,
    HeaderSticky,
    RouteTimeouts,
    Rule,
    Share,
    TrafficPolicy,
    TrafficPolicySpec,
)
from translator.objects.quantity import amount
from translator.objects.ref import CORE, Origin, Ref
from translator.plan import (
    Comparison,
    Cookie,
    Finding,
    Header,
    PathMatch,
    Protocol,
    Reason,
    Sticky,
    ValueMatch,
)
from translator.plan import Match as PlannedMatch
from translator.plan import Timeouts as PlannedTimeouts
from translator.planners import kserve, kubedl
from translator.planners.components import PREDICTOR, TRANSFORMER, ActiveComponents
from translator.planners.endpoints import PortOf
from translator.planners.grants import permitted
from translator.planners.options import (
    CONNECT_TIMEOUT,
    IDLE_TIMEOUT,
    MAX_REQUEST_BYTES,
    REQUEST_TIMEOUT,
    Options,
    listed,
)
from translator.planners.target import Candidate, Target, Weighted
from translator.planners.tls import trust
from translator.view import Absent, View

DEFAULT_RULE = "default"
"""The name of the route that serves what no rule matches."""

MOST_TOLD = 16
"""Names that nothing has, each told and logged by itself: a policy may have 16,000 shares."""


@dataclass(frozen=True, slots=True)
class PlannedRule:
    """A rule with everything filled in; the default route is the last of them."""

    name: str
    matches: tuple[PlannedMatch, ...]
    split: tuple[Weighted, ...]
    sticky: Sticky | None
    timeouts: PlannedTimeouts
    origin: Origin
    max_request_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Applied:
    """A target with its policy: all candidates by name, the rules in order, and what is the matter.

    ``timeouts`` are those of the target's components, where they are reached without rules. ``max_request_bytes`` count
    where a rule says nothing else.
    """

    candidates: Mapping[str, Candidate]
    rules: tuple[PlannedRule, ...]
    timeouts: Mapping[str, PlannedTimeouts]
    connect_timeout: int
    max_request_bytes: int = MAX_REQUEST_BYTES
    findings: tuple[Finding, ...] = ()
    invalid: tuple[Finding, ...] = field(default=())


def without(target: Target) -> Applied:
    """A target as its own fields have it."""
    timeouts = _timeouts(target.request_timeout)
    rule = PlannedRule(DEFAULT_RULE, (PlannedMatch(),), target.split, None, timeouts, target.split_origin)
    return Applied(target.candidates, (rule,), _of_components(target), CONNECT_TIMEOUT)


def refused(target: Target, applied: Applied) -> Applied:
    """A target whose policy is not in force. What that speaks TLS to is not spoken to in plain text all the same."""
    secured = {name: found for name, found in applied.candidates.items() if name in target.candidates and found.by_tls}
    return replace(without(target), candidates={**target.candidates, **secured})


def apply(view: View, target: Target, policy: TrafficPolicy, options: Options) -> Applied:
    """A target with a policy; names in splits that nothing has make it invalid, with the field's path."""
    spec = policy.spec
    candidates, findings = _candidates(view, target, policy, options)
    named = {*candidates, *(backend.name for backend in spec.backends)}
    rules = tuple(_rule(target, policy, rule, position) for position, rule in enumerate(spec.rules))
    connect = spec.timeouts.connect
    findings += [] if options.trusted_hops else _unseen_headers(policy)
    return Applied(
        candidates=candidates,
        rules=(*rules, _default(target, policy)),
        timeouts=_of_components(target, spec.timeouts),
        connect_timeout=CONNECT_TIMEOUT if connect is None else connect,
        max_request_bytes=_max_request_bytes(spec.buffer) or MAX_REQUEST_BYTES,
        findings=tuple(findings),
        invalid=tuple(_unknown_names(policy, named)),
    )


def _candidates(
    view: View, target: Target, policy: TrafficPolicy, options: Options
) -> tuple[dict[str, Candidate], list[Finding]]:
    candidates = dict(target.candidates)
    if policy.spec.split:  # it says where requests enter, whatever is ready
        for name in candidates.keys() & {PREDICTOR, TRANSFORMER}:
            candidates[name] = replace(candidates[name], meanwhile="")
    findings: list[Finding] = []
    for position, backend in enumerate(policy.spec.backends):
        origin = Origin(policy.ref, f"spec.backends[{position}].ref")
        found = _candidate(view, policy, backend, origin, options)
        if isinstance(found, Candidate):
            candidates[backend.name] = found
        else:
            findings.append(found)
            candidates.pop(backend.name, None)
            if backend.when_unready == "Fail":
                candidates[backend.name] = _nowhere(policy, backend, origin)
    return candidates, findings


def _nowhere(policy: TrafficPolicy, backend: Backend, origin: Origin) -> Candidate:
    """Stands for a backend that cannot even be looked up and keeps its share all the same."""
    found = Candidate(backend.name, PortOf(policy.ref.namespace, backend.ref.name, None), origin, exists=False)
    return _with_settings(found, policy, backend, origin)


def _candidate(
    view: View, policy: TrafficPolicy, backend: Backend, origin: Origin, options: Options
) -> Candidate | Finding:
    ref, target = backend.ref, backend.ref.ref(policy.ref.namespace)
    if not permitted(view, policy.ref, target):
        message = f"{target} is in another namespace, which needs a ReferenceGrant"
        return Finding(origin, Reason.REF_NOT_PERMITTED, message)
    if ref.group == CORE:
        found: Candidate | Finding = Candidate(backend.name, PortOf(target.namespace, ref.name, ref.port), origin)
    else:
        found = _part(view, target, backend, origin, options)
    return found if isinstance(found, Finding) else _with_settings(found, policy, backend, origin)


def _with_settings(found: Candidate, policy: TrafficPolicy, backend: Backend, origin: Origin) -> Candidate:
    protocol = Protocol(backend.protocol) if backend.protocol else found.protocol
    return Candidate(
        name=backend.name,
        port=found.port,
        origin=origin,
        protocol=protocol,
        trust=trust(backend.tls, policy.ref.namespace),
        grpc=found.grpc,
        ready=found.ready,
        exists=found.exists,
        keeps_share=backend.when_unready == "Fail",
    )


def _part(view: View, ref: Ref, backend: Backend, origin: Origin, options: Options) -> Candidate | Finding:
    """The part of an InferenceService or Inference that a backend names; by default where its requests enter."""
    section = backend.ref.section_name
    if ref.kind == "InferenceService":
        service = view.get(ref, InferenceService)
        if isinstance(service, Absent):
            return Finding(origin, Reason.BACKEND_NOT_FOUND, f"{ref} not found")
        parts = kserve.target(view, service, options, view.fact(ref, ActiveComponents))
        return _section(ref, parts.candidates, section or parts.entry, origin)
    inference = view.get(ref, Inference)
    if isinstance(inference, Absent):
        return Finding(origin, Reason.BACKEND_NOT_FOUND, f"{ref} not found")
    if section is None:
        return kubedl.entry(inference, backend.name, origin)
    return _section(ref, kubedl.target(view, inference, options).candidates, section, origin)


def _section(ref: Ref, parts: Mapping[str, Candidate], section: str, origin: Origin) -> Candidate | Finding:
    if section in parts:
        return parts[section]
    message = f"{ref} has no part {section}; its parts: {listed(list(parts))}"
    return Finding(origin, Reason.BACKEND_NOT_FOUND, message)


def _unknown_names(policy: TrafficPolicy, named: set[str]) -> list[Finding]:
    splits: list[tuple[str, Sequence[Share]]] = [("spec.split", policy.spec.split)]
    splits += [(f"spec.rules[{position}].split", rule.split) for position, rule in enumerate(policy.spec.rules)]
    unknown = [
        (f"{path}[{position}].backend", share.backend)
        for path, split in splits
        for position, share in enumerate(split)
        if share.backend not in named
    ]
    allowed = listed(sorted(named))
    told = [(path, f"found {name}, allowed {allowed}") for path, name in unknown[:MOST_TOLD]]
    if len(unknown) > MOST_TOLD:
        told.append(("spec", f"found {len(unknown) - MOST_TOLD} more names that nothing has"))
    return [Finding(Origin(policy.ref, path), Reason.INVALID, message) for path, message in told]


def _unseen_headers(policy: TrafficPolicy) -> list[Finding]:
    """Headers that gateways drop while no proxy is trusted: a condition on one never holds."""
    why = "has no effect: gateways drop this header of clients, unless the setting trusted_hops trusts proxies in front"
    fields = islice(_fields_of_proxies(policy.spec), MOST_TOLD)
    return [Finding(Origin(policy.ref, field), Reason.FIELD_IGNORED, why) for field in fields]


def _fields_of_proxies(spec: TrafficPolicySpec) -> Iterator[str]:
    stickies = [("spec", spec.sticky), *((f"spec.rules[{at}]", rule.sticky) for at, rule in enumerate(spec.rules))]
    for path, sticky in stickies:
        if isinstance(sticky, HeaderSticky) and sticky.name in HEADERS_OF_PROXIES:
            yield f"{path}.sticky.name"
    for at, rule in enumerate(spec.rules):
        for position, match in enumerate(rule.matches):
            for number, header in enumerate(match.headers):
                if header.name in HEADERS_OF_PROXIES:
                    yield f"spec.rules[{at}].matches[{position}].headers[{number}].name"


def _rule(target: Target, policy: TrafficPolicy, rule: Rule, position: int) -> PlannedRule:
    sticky = rule.sticky or policy.spec.sticky
    return PlannedRule(
        name=rule.name,
        matches=tuple(_match(match) for match in rule.matches) or (PlannedMatch(),),
        split=_weighted(rule.split or policy.spec.split) or target.split,
        sticky=_sticky(sticky) if sticky else None,
        timeouts=_timeouts(target.request_timeout, rule.timeouts, policy.spec.timeouts),
        origin=Origin(policy.ref, f"spec.rules[{position}]"),
        max_request_bytes=_max_request_bytes(rule.buffer),
    )


def _default(target: Target, policy: TrafficPolicy) -> PlannedRule:
    spec = policy.spec
    return PlannedRule(
        name=DEFAULT_RULE,
        matches=(PlannedMatch(),),
        split=_weighted(spec.split) or target.split,
        sticky=_sticky(spec.sticky) if spec.sticky else None,
        timeouts=_timeouts(target.request_timeout, spec.timeouts),
        origin=Origin(policy.ref, "spec.split") if spec.split else target.split_origin,
    )


def _weighted(split: Sequence[Share]) -> tuple[Weighted, ...]:
    return tuple(Weighted(share.backend, share.weight, share.priority) for share in split)


def _sticky(sticky: CookieSticky | HeaderSticky) -> Sticky:
    return Cookie(sticky.name, sticky.ttl) if isinstance(sticky, CookieSticky) else Header(sticky.name)


def _of_components(target: Target, *said: RouteTimeouts) -> dict[str, PlannedTimeouts]:
    return {component.name: _timeouts(component.request_timeout, *said) for component in target.components}


def _timeouts(component: int | None, *said: RouteTimeouts) -> PlannedTimeouts:
    """The first that says it (the rule, then the policy), else the component's own, else the default.

    A model that computes sends no byte, so the default of the idle timeout never cuts a longer request timeout.
    """
    own = REQUEST_TIMEOUT if component is None else component
    request = next((found.request for found in said if found.request is not None), own)
    idle = next((found.idle for found in said if found.idle is not None), max(IDLE_TIMEOUT, request))
    return PlannedTimeouts(request, idle)


def _max_request_bytes(buffer: Buffer) -> int | None:
    return None if buffer.max_request_bytes is None else int(amount(buffer.max_request_bytes))


def _match(match: Match) -> PlannedMatch:
    path = match.path
    return PlannedMatch(
        path=None if path is None else _path(path),
        method=match.method,
        headers=_values(match.headers),
        cookies=_values(match.cookies),
        query=_values(match.query_params),
    )


def _path(path: PathSpec) -> PathMatch:
    """A regular expression sees the path as it was sent; the others mean it in all spellings."""
    match path.type:
        case "RegularExpression":
            return PathMatch(Comparison.REGEX, path.value)
        case "Exact":
            return PathMatch(Comparison.EXACT, canonical(path.value))
        case "PathPrefix":
            return PathMatch(Comparison.PREFIX, canonical(path.value))


def _values(matches: Sequence[HeaderMatch | CookieMatch | QueryParamMatch]) -> tuple[ValueMatch, ...]:
    return tuple(ValueMatch(match.name, Comparison(match.type), match.value or "") for match in matches)
