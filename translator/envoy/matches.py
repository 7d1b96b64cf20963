"""Conditions on a request to route matches."""

from __future__ import annotations

from typing import TypedDict

from translator.envoy import paths
from translator.envoy.cookies import cookie
from translator.envoy.shared import shared
from translator.plan import Comparison, Match, PathMatch, Unsafe, ValueMatch
from xds.api.envoy.config.route.v3 import (
    HeaderMatcher,
    QueryParameterMatcher,
    RouteMatch,
    RouteMatchGrpcRouteMatchOptions,
)
from xds.api.envoy.type.matcher.v3 import RegexMatcher, StringMatcher

METHOD_HEADER = ":method"


def _matching(name: str, regex: str) -> HeaderMatcher:
    return HeaderMatcher(name=name, string_match=StringMatcher(safe_regex=RegexMatcher(regex=regex)))


UNSAFE = {
    # Envoy joins two Host headers by a comma.
    Unsafe.HOST: _matching(":authority", r"\C*[@,]\C*"),
    # Over HTTP/2 a method may be any word, and some servers take it in any case.
    Unsafe.METHOD: _matching(METHOD_HEADER, r"TRACE|\C*[^A-Z-]\C*"),
    # An expression that ends with `$` matches before a last newline, too: so Starlette finds its handlers.
    Unsafe.PATH: _matching(":path", r"[^?]*%(?:[01][0-9A-Fa-f]|7[Ff])\C*"),
}
"""Conditions on headers; `LOCAL_REPLIES` has the answers to requests that meet one."""


def route_match(match: Match, *further: HeaderMatcher) -> RouteMatch:
    """A route's match; ``further`` are conditions on headers beside the plan's own."""
    return _route_match(match, *further) if further else _plain(match)


@shared
def _plain(match: Match) -> RouteMatch:
    return _route_match(match)


def _route_match(match: Match, *further: HeaderMatcher) -> RouteMatch:
    return RouteMatch(
        **_path(match.path),
        headers=[*_headers(match), *further],
        query_parameters=[_query(condition) for condition in match.query],
        grpc=RouteMatchGrpcRouteMatchOptions() if match.grpc else None,
    )


class _Path(TypedDict, total=False):
    """The one of a route match's fields that is about the path."""

    path: str
    prefix: str
    path_separated_prefix: str
    safe_regex: RegexMatcher


def _path(match: PathMatch | None) -> _Path:
    """A path with one spelling is compared as it is, any other by an expression for all of them."""
    value = "" if match is None else match.value
    match match and match.comparison:
        case Comparison.EXACT:
            return {"path": value} if paths.is_plain(value) else {"safe_regex": _regex(paths.exact(value))}
        case Comparison.REGEX:
            return {"safe_regex": _regex(value)}
        case _ if not (separated := value.rstrip("/")):
            return {"prefix": "/"}
        case _ if paths.is_plain(separated):
            return {"path_separated_prefix": separated}
        case _:
            return {"safe_regex": _regex(paths.prefix(separated))}


def _headers(match: Match) -> list[HeaderMatcher]:
    method = [] if match.method is None else [ValueMatch(METHOD_HEADER, Comparison.EXACT, match.method)]
    return [
        *([] if match.unsafe is None else [UNSAFE[match.unsafe]]),
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
