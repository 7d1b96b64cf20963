"""What a rule of a TrafficPolicy looks at in a request."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal, NoReturn, Self

from pydantic import Field, model_validator

from translator.objects.base import Many, OurModel
from translator.objects.cookies import within_value
from translator.objects.errors import shorten, show
from translator.objects.fields import CookieName, HeaderName, QueryName, expression_problem, is_text
from translator.objects.paths import spelled_length
from translator.objects.refusal import Refusal, refuse_at

# Gateways refuse CONNECT, which needs a tunnel, and TRACE, which shows a client the headers that proxies add.
Method = Literal["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"]

# Gateways normalise paths: dots, double slashes and backslashes are resolved, %2F and %5C answered with a redirect
# (tried). What is no ASCII comes as %XX.
_NORMALISED_AWAY = re.compile(r"//|/(?:\.|%2e){1,2}(?:/|\Z)|\\|[^\x00-\x7f]|%(?:2f|5c)", re.IGNORECASE)

_PARTS_OF_QUERY = frozenset("&# ")

_LONGEST_VALUE = 4096
_PER_CONDITION = 64


class ValueMatch(OurModel):
    """How a value is compared; a regular expression matches the whole value, ``Present`` needs none."""

    type: Literal["Exact", "RegularExpression", "Present", "Prefix"] = "Exact"
    """How the value is compared; a regular expression (RE2) matches the whole value."""
    value: str | None = None
    """What it is compared with; not beside `Present`."""

    @model_validator(mode="after")
    def _value_fits_type(self) -> Self:
        # A value that requests are compared with may be a secret, so no message shows it.
        if self.type == "Present":
            if self.value is not None:
                _refuse_value("no value beside type Present", "a value")
        elif self.value is None:
            _refuse_value("a value")
        elif self.type == "RegularExpression":
            _check_expression(self.value, "an expression that RE2 does not take (not shown: it may hold a secret)")
        elif not is_text(self.value) or len(self.value) > _LONGEST_VALUE:
            _refuse_value(f"up to {_LONGEST_VALUE} characters, none a control character", "a string")
        elif self.type == "Prefix" and not self.value:
            _refuse_value("at least 1 character; type Present takes any value", "an empty string")
        return self


class HeaderMatch(ValueMatch):
    """``name`` is lower case."""

    name: HeaderName
    """The header's name, in any case."""


class CookieMatch(ValueMatch):
    """``name`` is compared as it is."""

    name: CookieName
    """The cookie's name."""

    @model_validator(mode="after")
    def _stays_in_its_cookie(self) -> Self:
        if self.type == "RegularExpression" and self.value is not None:
            try:
                within_value(self.value)
            except ValueError:
                _refuse_value("what cannot match a semicolon: no value of a cookie holds one", "an expression")
        return self


class QueryParamMatch(ValueMatch):
    """Name and value are compared as they stand in the URL: gateways decode neither."""

    name: QueryName
    """The parameter's name; name and value as they stand in the URL, where a blank is `%20` or `+`."""

    @model_validator(mode="after")
    def _stands_in_a_url(self) -> Self:
        if not _PARTS_OF_QUERY.isdisjoint(self.name) or "=" in self.name:
            refuse_at(Refusal(("name",), self.name, "a name as it stands in a URL: no &, #, = and blank"))
        if self.type in {"Exact", "Prefix"} and not _PARTS_OF_QUERY.isdisjoint(self.value or ""):
            _refuse_value("what stands so in a URL: no &, #, and for a blank %20 or +", "a string")
        return self


class PathMatch(OurModel):
    """``PathPrefix`` counts whole elements: ``/v1`` matches ``/v1/models`` and not ``/v10``."""

    type: Literal["PathPrefix", "Exact", "RegularExpression"] = "PathPrefix"
    """How the path is compared; a prefix counts whole elements, a regular expression (RE2) matches the whole path."""
    value: str
    """The path, without the query; as gateways see it: normalised, without `//`, `/./` and `/../`, and all that is no
    ASCII as `%XX`. `Exact` and `PathPrefix` mean a character in either spelling: `:` and `%3A` are one. A regular
    expression sees the path as it was sent, but for letters, digits and `-._~`, which arrive decoded."""

    @model_validator(mode="after")
    def _value_fits_type(self) -> Self:
        if self.type == "RegularExpression":
            _check_expression(self.value)
        elif not self.value.startswith("/") or len(self.value) > 1024:
            refuse_at(Refusal(("value",), self.value, "a path that starts with /, at most 1024 characters"))
        elif not is_text(self.value) or any(character in self.value for character in "?# "):
            refuse_at(Refusal(("value",), self.value, "a path without ?, #, spaces and control characters"))
        elif never := _NORMALISED_AWAY.search(self.value):
            allowed = f"a path as gateways normalise it: none has {show(never[0])}"
            refuse_at(Refusal(("value",), self.value, allowed))
        return self

    @property
    def size(self) -> int:
        """About how many characters it takes in a route."""
        return len(self.value) if self.type == "RegularExpression" else spelled_length(self.value)


class Match(OurModel):
    """All of its parts must hold; one without parts matches every request."""

    NOT_YET_FIELDS: ClassVar[frozenset[str]] = frozenset({"model"})

    headers: Annotated[Many[HeaderMatch], Field(max_length=16)] = ()
    """All of these headers."""
    cookies: Annotated[Many[CookieMatch], Field(max_length=16)] = ()
    """All of these cookies."""
    query_params: Annotated[Many[QueryParamMatch], Field(max_length=16)] = ()
    """All of these query parameters."""
    path: PathMatch | None = None
    """The path."""
    method: Method | None = None
    """The method."""

    @property
    def size(self) -> int:
        """About how many characters its conditions take in a route."""
        conditions: list[HeaderMatch | CookieMatch | QueryParamMatch]
        conditions = [*self.headers, *self.cookies, *self.query_params]
        said = sum(_PER_CONDITION + len(each.name) + len(each.value or "") for each in conditions)
        return _PER_CONDITION + said + (self.path.size if self.path else 0)


def _refuse_value(allowed: str, found: str = "nothing") -> NoReturn:
    refuse_at(Refusal(("value",), None, allowed, found))


def _check_expression(expression: str, shown: str | None = None) -> None:
    """``shown`` stands for an expression that must not be shown; RE2's words quote it, so they are left out too."""
    problem = expression_problem(expression)
    if problem:
        why = "" if shown else f" ({shorten(problem, 200)})"
        refuse_at(Refusal(("value",), None if shown else expression, f"a regular expression of RE2{why}", shown))
