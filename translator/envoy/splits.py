"""Splits to weighted clusters, and how a client stays with the backend it met first."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from translator import names
from translator.envoy.cookies import has_cookie
from translator.envoy.rendered import milliseconds
from translator.envoy.shared import shared
from translator.objects.ref import Ref
from translator.plan import Cookie, Header, Share, Split, Timeouts
from xds.api.envoy.config.core.v3 import HeaderValue, HeaderValueOption, HeaderValueOptionHeaderAppendAction
from xds.api.envoy.config.route.v3 import (
    HeaderMatcher,
    RouteAction,
    RouteActionHashPolicy,
    RouteActionHashPolicyCookie,
    RouteActionHashPolicyHeader,
    WeightedCluster,
    WeightedClusterClusterWeight,
)
from xds.api.envoy.type.matcher.v3 import RegexMatchAndSubstitute, RegexMatcher

STICKY_TOTAL = 1_000_000_000
"""The hash of a key is taken modulo the total weight, so the total must stay when weights change: then between two
backends only the share that must move moves. Large enough for any weight of the API to keep its proportion."""

LARGEST_TOTAL = (1 << 32) - 1
"""Envoy refuses a split whose weights sum up to more; KubeDL's weights have no bound."""

REQUEST_ID = "x-request-id"

UNIQUE_ID = "x-xdserve-unique-id"
"""A listener that keeps the request ids of clients sets this header beside them. Every other listener removes it, so
no client chooses it. On a connection of a replaced listener it is missing, and the request id is Envoy's own there."""


@dataclass(frozen=True, slots=True)
class Leg:
    """One of the routes that a split needs: its further conditions, its action, and a cookie to set."""

    suffix: str
    conditions: tuple[HeaderMatcher, ...]
    action: RouteAction
    set_cookie: HeaderValueOption | None = None


def legs(service: Ref, split: Split, timeouts: Timeouts, below: str = "") -> Iterator[Leg]:
    """The routes of a split, in order.

    A sticky cookie takes two: with the cookie its value decides; without it an id of the gateway's own decides, and the
    answer sets the cookie to that very id, so that the first answer already belongs to the cookie. (A cookie that
    Envoy's hash policy makes by itself is never set for a weighted cluster.)
    """
    match split.sticky:
        case Cookie() as cookie:
            by_cookie = RouteActionHashPolicy(cookie=RouteActionHashPolicyCookie(name=cookie.name))
            yield Leg("-sticky", (has_cookie(cookie.name),), _action(service, split, timeouts, below, by_cookie))
            drawn = _by_header(UNIQUE_ID, terminal=True), _by_header(REQUEST_ID)
            yield Leg("", (), _action(service, split, timeouts, below, *drawn), _set_cookie(cookie))
        case Header(name):
            yield Leg("", (), _action(service, split, timeouts, below, _by_header(name)))
        case None:
            yield Leg("", (), _action(service, split, timeouts, below))


def _action(service: Ref, split: Split, timeouts: Timeouts, below: str, *by: RouteActionHashPolicy) -> RouteAction:
    single = len(split.shares) == 1
    return RouteAction(
        cluster=names.cluster(service, split.shares[0].backend) if single else None,
        weighted_clusters=None if single else _weighted(service, split.shares, sticky=bool(by)),
        hash_policy=list(by),
        timeout=milliseconds(timeouts.request),
        idle_timeout=milliseconds(timeouts.idle),
        regex_rewrite=_without(below) if below else None,
    )


@shared
def _without(below: str) -> RegexMatchAndSubstitute:
    """The path without what all paths begin with; Envoy would make two slashes of one by a rewrite of the prefix."""
    return RegexMatchAndSubstitute(pattern=RegexMatcher(regex=f"^{re.escape(below)}/?"), substitution="/")


def _weighted(service: Ref, shares: Sequence[Share], *, sticky: bool) -> WeightedCluster:
    weights = [share.weight for share in shares]
    if sticky or sum(weights) > LARGEST_TOTAL:
        weights = to_constant_total(weights)
    return WeightedCluster(
        clusters=[
            WeightedClusterClusterWeight(name=names.cluster(service, share.backend), weight=weight)
            for share, weight in zip(shares, weights, strict=True)
        ],
        use_hash_policy=True if sticky else None,
    )


def to_constant_total(weights: Sequence[int]) -> list[int]:
    """The same proportions with ``STICKY_TOTAL`` as their sum; the order of the weights is that of the intervals."""
    total = sum(weights)
    edges = [0]
    for weight in weights:
        edges.append(edges[-1] + weight)
    scaled = [edge * STICKY_TOTAL // total for edge in edges]
    return [after - before for before, after in pairwise(scaled)]


def _by_header(name: str, *, terminal: bool = False) -> RouteActionHashPolicy:
    return RouteActionHashPolicy(header=RouteActionHashPolicyHeader(header_name=name), terminal=terminal)


def _set_cookie(cookie: Cookie) -> HeaderValueOption:
    name = cookie.name.replace("%", "%%")  # a header's value is a format
    age = "" if cookie.ttl is None else f" Max-Age={max(1, cookie.ttl // 1000)};"
    return HeaderValueOption(
        header=HeaderValue(key="set-cookie", value=f"{name}=%REQ({UNIQUE_ID}?{REQUEST_ID})%;{age} Path=/; HttpOnly"),
        append_action=HeaderValueOptionHeaderAppendAction.APPEND_IF_EXISTS_OR_ADD,
    )
