"""Conditions on a request to route matches."""

from __future__ import annotations

from translator.envoy.cookies import cookie
from translator.envoy.shared import shared
from translator.plan import Comparison, Match, ValueMatch
from xds.api.envoy.config.route.v3 import (
    HeaderMatcher,
    QueryParameterMatcher,
    RouteMatch,
    RouteMatchGrpcRouteMatchOptions,
)
from xds.api.envoy.type.matcher.v3 import RegexMatcher, StringMatcher

METHOD_HEADER = ":method"


def route_match(match: Match, *further: HeaderMatcher) -> RouteMatch:
    """A route's match; ``further`` are conditions on headers beside the plan's own."""
    return _route_match(match, *further) if further else _plain(match)


@shared
def _plain(match: Match) -> RouteMatch:
    return _route_match(match)


def _route_match(match: Match, *further: HeaderMatcher) -> RouteMatch:
    path, kind = match.path, match.path and match.path.comparison
    separated = path.value.rstrip("/") if path is not None and kind is Comparison.PREFIX else ""
    return RouteMatch(
        path=path.value if path is not None and kind is Comparison.EXACT else None,
        safe_regex=_regex(path.value) if path is not None and kind is Comparison.REGEX else None,
        path_separated_prefix=separated or None,
        prefix="/" if kind in {None, Comparison.PREFIX} and not separated else None,
        headers=[*_headers(match), *further],
        query_parameters=[_query(condition) for condition in match.query],
        grpc=RouteMatchGrpcRouteMatchOptions() if match.grpc else None,
    )


def _headers(match: Match) -> list[HeaderMatcher]:
    method = [] if match.method is None else [ValueMatch(METHOD_HEADER, Comparison.EXACT, match.method)]
    return [
        *(_header(condition) for condition in (*method, *match.headers)),
        *(cookie(condition) for condition in match.cookies),
    ]


def _header(condition: ValueMatch) -> HeaderMatcher:
    if condition.comparison is Comparison.PRESENT:
        return HeaderMatcher(name=condition.name, present_match=True)
    return HeaderMatcher(name=condition.name, string_match=_string(condition))


def _query(condition: ValueMatch) -> QueryParameterMatcher:
    if condition.comparison is Comparison.PRESENT:
        return QueryParameterMatcher(name=condition.name, present_match=True)
    return QueryParameterMatcher(name=condition.name, string_match=_string(condition))


def _string(condition: ValueMatch) -> StringMatcher:
    match condition.comparison:
        case Comparison.EXACT:
            return StringMatcher(exact=condition.value)
        case Comparison.PREFIX:
            return StringMatcher(prefix=condition.value)
        case _:
            return StringMatcher(safe_regex=_regex(condition.value))


def _regex(value: str) -> RegexMatcher:
    """Envoy refuses an empty expression; the one it gets matches the same: the empty value."""
    return RegexMatcher(regex=value or "()")
