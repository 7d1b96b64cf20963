"""The order of a service's routes, and who gets a split's requests: hosts and routes out of rules and variants."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from translator import names
from translator.objects.fields import matches_whole
from translator.objects.ref import Origin, Ref
from translator.plan import (
    RETRY_AFTER,
    Comparison,
    Finding,
    Host,
    Match,
    PathMatch,
    Reason,
    Reply,
    Route,
    ServicePlan,
    Share,
    Split,
    Timeouts,
    Unsafe,
)
from translator.planners.options import IDLE_TIMEOUT, REQUEST_TIMEOUT, Options, listed
from translator.planners.policy import PlannedRule
from translator.planners.target import Candidate, Target, Variant, Weighted

EXPLAIN_PATH = r"/v1/models/[^/]+(?::|%3[Aa])explain"
"""KServe's ingress sends this to the explainer. Here it has every spelling, and names may have dots (kserve#2447)."""

UNAVAILABLE = 503
ERRORS = {
    "NoBackendReady": (UNAVAILABLE, "no backend of the rule is ready"),
    "Stopped": (UNAVAILABLE, "the service is stopped"),
    "NotFound": (404, "a host or path that no service has, where not every one is served; a service that is gone"),
    "NoGRPC": (404, "a gRPC call where no backend speaks gRPC"),
}
"""The errors that a gateway answers by its routes: status, and when."""

HEALTH, READY = "/healthz", "/readyz"
ANY_HOST = "*"

# Every plan has these: made once, they cost little to make, to compare and to render.
_ANY = Match()
_NO_BACKEND = Timeouts(REQUEST_TIMEOUT, IDLE_TIMEOUT)
_GRPC = Match(grpc=True)
# Refusals. Their words are the listener's: they are the same for every service.
_BAD_HOST = (Unsafe.HOST.value, Match(unsafe=Unsafe.HOST), Reply(400))
_BAD_METHOD = (Unsafe.METHOD.value, Match(unsafe=Unsafe.METHOD), Reply(405))
_BAD_PATH = (Unsafe.PATH.value, Match(unsafe=Unsafe.PATH), Reply(400))
_PROBES = {path: Match(path=PathMatch(Comparison.EXACT, path), method="GET") for path in (HEALTH, READY)}
_ALIVE = Reply(200, json.dumps({"status": "ok"}))
# 404 is UNIMPLEMENTED to a gRPC client, which reads no body.
_NO_GRPC = Reply(ERRORS["NoGRPC"][0], reason="NoGRPC", message="no backend speaks gRPC")
_READY = {
    True: Reply(200, json.dumps({"status": "ready"})),
    False: Reply(503, json.dumps({"status": "no backend is ready"})),
}


@dataclass(frozen=True, slots=True)
class Routing:
    """A target with its rules (the default route last) and its variants by name, on a gateway of its own.

    ``timeouts`` are those of its components; ``first`` are routes before all rules. ``takes_grpc`` is the answer of
    `may_take_grpc` for the rules and variants.
    """

    target: Target
    rules: tuple[PlannedRule, ...]
    timeouts: Mapping[str, Timeouts]
    variants: Mapping[str, Variant]
    claimed: tuple[str, ...]
    options: Options
    max_request_bytes: int
    takes_grpc: bool
    first: tuple[Route, ...] = ()

    def hosts(self) -> tuple[Host, ...]:
        """All hosts. Every other name is served too, unless the service is for the cluster alone: then it is a 404."""
        target, probes = self.target, (self._answer(*_BAD_METHOD), *self._probes())
        bad_host = self._answer(*_BAD_HOST)
        first = (*probes, *(self._stopped() if target.stopped else self._without_grpc()))
        routes = first if target.stopped else (*first, *self._routes())
        addresses = target.addresses
        if target.cluster_local:
            # Of the names of a gateway for all hosts the short ones need no word.
            main = self._host("main", (*addresses.inside, *addresses.short), routes)
            return main, Host("others", (ANY_HOST,), (bad_host, *probes, self._not_found()))
        names = tuple(dict.fromkeys((addresses.outside, *addresses.inside, *self.claimed)))
        # A name that is compared as a whole is never ambiguous.
        main = self._host("main", (*names, ANY_HOST), (bad_host, *routes))
        return main, *self._component_hosts(first, names), *self._path_host(routes, names)

    def _host(self, name: str, domains: tuple[str, ...], routes: tuple[Route, ...]) -> Host:
        return Host(name, domains, routes, self.target.request_headers, self.max_request_bytes)

    def _component_hosts(self, first: tuple[Route, ...], taken: tuple[str, ...]) -> Iterator[Host]:
        """A component's own hosts reach its stable variant, without rules and split."""
        for component in self.target.components:
            domains = tuple(host for host in component.hosts if host not in taken)
            if domains:
                routes = () if self.target.stopped else self._rule(self._whole(component.name))
                yield self._host(component.name, domains, (*first, *routes))

    def _path_host(self, routes: Sequence[Route], taken: tuple[str, ...]) -> Iterator[Host]:
        """The host that services share, each below its own path: what is not below this one's is not for it."""
        host, path = self.target.addresses.path_host, self.target.addresses.path
        if host and host not in taken:
            below = (replace(route, match=_below(path, route.match), below=path) for route in routes)
            yield self._host("path", (host,), (*below, self._not_found("no service has this path")))

    def _routes(self) -> Iterator[Route]:
        """Those before all rules; rules in order, ``:explain`` to the explainer, then the default split."""
        yield from self.first
        if self._routes_by_path():
            yield self._answer(*_BAD_PATH)
        *rules, default = self.rules
        for rule in rules:
            yield from self._rule(rule)
        if self.target.explainer is not None:
            match = Match(path=PathMatch(Comparison.REGEX, EXPLAIN_PATH))
            whole = self._whole(self.target.explainer)
            yield Route("explain", match, self._action(whole, grpc=False), whole.timeouts, whole.origin)
        yield from self._rule(default)

    def _routes_by_path(self) -> bool:
        by_path = any(match.path is not None for rule in self.rules for match in rule.matches)
        return by_path or self.target.explainer is not None

    def _whole(self, component: str) -> PlannedRule:
        """A rule that gives everything to one component."""
        origin = self.target.candidates[component].origin
        whole = (Weighted(component, 1),)
        return PlannedRule(component, (_ANY,), whole, None, self.timeouts[component], origin)

    def _rule(self, rule: PlannedRule) -> Iterator[Route]:
        """A route for each match, with one before it for gRPC if that goes to other ports."""
        plain, grpc = self._action(rule, grpc=False), self._grpc_action(rule)
        timeouts, origin, size = rule.timeouts, rule.origin, rule.max_request_bytes
        for position, match in enumerate(rule.matches):
            name = rule.name if len(rule.matches) == 1 else f"{rule.name}-{position}"
            if grpc is not None:
                yield Route(f"{name}-grpc", replace(match, grpc=True), grpc, timeouts, origin, size)
            yield Route(name, match, plain, timeouts, origin, size)

    def _grpc_action(self, rule: PlannedRule) -> Split | Reply | None:
        """The action for gRPC calls; None if it is that of other requests, or if one route has it for all rules.

        A backend that does not speak gRPC has no part in it. One that is not found may yet speak it.
        """
        if not self.takes_grpc:
            return None
        found = [self.variants.get(share.backend) for share in rule.split if share.weight]
        speak = [variant is None or variant.speaks_grpc for variant in found]
        if not any(speak):
            return _NO_GRPC if found else None
        same = all(variant is None or variant.grpc is variant.backend for variant in found)
        return None if same and all(speak) else self._action(rule, grpc=True)

    def _without_grpc(self) -> Iterator[Route]:
        """Before all rules, where no backend takes gRPC calls: else they would meet servers that cannot answer them."""
        if not self.takes_grpc:
            yield self._answer("grpc", _GRPC, _NO_GRPC)

    def _action(self, rule: PlannedRule, *, grpc: bool) -> Split | Reply:
        shares = self._shares(rule, grpc=grpc)
        if shares:
            return Split(shares, rule.sticky if len(shares) > 1 else None)
        said = f"no backend of {self.target.ref.name} is ready"
        if self.options.name_backends_in_errors:
            said += f": {listed([share.backend for share in rule.split])}"
        return _error("NoBackendReady", said)

    def _shares(self, rule: PlannedRule, *, grpc: bool) -> tuple[Share, ...]:
        """The shares of the first priority that has one: of weight above 0, and ready or keeping its share anyway."""
        for priority in sorted({share.priority for share in rule.split}):
            shares = tuple(
                Share((variant.grpc if grpc else variant.backend).name, share.weight)
                for share in rule.split
                if share.priority == priority
                and share.weight
                and (variant := self.variants.get(share.backend)) is not None
                and (not grpc or variant.speaks_grpc)
                and (variant.keeps_share or (variant.grpc_ready if grpc else variant.ready))
            )
            if shares:
                return shares
        return ()

    def _probes(self) -> Iterator[Route]:
        """What the gateway answers about itself, unless a rule claims the path."""
        ready = not self.target.stopped and any(self._serves(rule) for rule in self.rules)
        for path, reply in ((HEALTH, _ALIVE), (READY, _READY[ready])):
            if not any(_claims(match.path, path) for rule in self.rules for match in rule.matches):
                yield self._answer(path.removeprefix("/"), _PROBES[path], reply)

    def _serves(self, rule: PlannedRule) -> bool:
        """Whether one that has a share is ready; to keep a share is not to serve."""
        found = (self.variants.get(share.backend) for share in rule.split if share.weight)
        return any(variant is not None and (variant.ready or variant.grpc_ready) for variant in found)

    def _stopped(self) -> Iterator[Route]:
        yield self._answer("stopped", _ANY, _error("Stopped", f"{self.target.ref.name} is stopped"))

    def _not_found(self, message: str = "no service has this host") -> Route:
        return self._answer("not-found", _ANY, _error("NotFound", message))

    def _answer(self, name: str, match: Match, reply: Reply) -> Route:
        return Route(name, match, reply, _NO_BACKEND, self.target.split_origin)


def may_take_grpc(rules: Sequence[PlannedRule], variants: Mapping[str, Variant]) -> bool:
    """True if a backend takes gRPC calls, or may take them once it is there."""
    return any(variant.speaks_grpc for variant in variants.values()) or any(
        share.backend not in variants for rule in rules for share in rule.split
    )


def without_grpc(
    rules: Sequence[PlannedRule], variants: Mapping[str, Variant], candidates: Mapping[str, Candidate]
) -> list[Finding]:
    """The backends that get no share of gRPC calls, where others of the same split get theirs."""
    if not any(variant.speaks_grpc for variant in variants.values()):
        return []
    silent: dict[str, None] = {}
    for rule in rules:
        names = (share.backend for share in rule.split if share.weight)
        found = {name: variant for name in names if (variant := variants.get(name)) is not None and variant.exists}
        if any(variant.speaks_grpc for variant in found.values()):
            silent |= {name: None for name, variant in found.items() if not variant.speaks_grpc}
    return [_no_grpc_share(candidates[name]) for name in silent]


def _no_grpc_share(candidate: Candidate) -> Finding:
    message = f"backend {candidate.name} ({candidate.port.ref}) has no port for gRPC: it gets no share of gRPC calls"
    return Finding(candidate.origin, Reason.UNSUPPORTED_PROTOCOL, message)


def gone(service: Ref, *, unserved: bool = False) -> ServicePlan:
    """What a gateway does after its target is gone, or is served by none any more, until its Envoys are gone too."""
    origin = Origin(service, "metadata.name")
    said = "is in a mode that gateways do not serve" if unserved else "is gone"
    reply = _error("NotFound", f"{service.name} {said}")
    route = Route("gone", _ANY, reply, _NO_BACKEND, origin)
    host = Host("others", (ANY_HOST,), (route,))
    return ServicePlan(service, names.gateway(service), (host,), (), origin)


def _below(path: str, match: Match) -> Match:
    """The same match for requests whose path has this one before it: a path of one spelling."""
    condition = match.path or PathMatch(Comparison.PREFIX, "/")
    if condition.comparison is Comparison.REGEX:
        # It matches a whole path, so that what it begins with says no more than that.
        expression = condition.value.removeprefix("^")
        return replace(match, path=PathMatch(Comparison.REGEX, f"{re.escape(path)}(?:{expression})"))
    return replace(match, path=PathMatch(condition.comparison, path + condition.value))


def _claims(condition: PathMatch | None, path: str) -> bool:
    """Whether a rule means this very path; one for all paths does not."""
    if condition is None:
        return False
    match condition.comparison:
        case Comparison.EXACT:
            return condition.value == path
        case Comparison.PREFIX:
            return condition.value != "/" and f"{path}/".startswith(condition.value.rstrip("/") + "/")
        case _:
            return matches_whole(condition.value, path) and not matches_whole(condition.value, "/")


def _error(reason: str, message: str) -> Reply:
    status, _ = ERRORS[reason]
    body = json.dumps({"error": {"code": status, "reason": reason, "message": message}})
    return Reply(status, body, RETRY_AFTER if status == UNAVAILABLE else None, reason, message)
