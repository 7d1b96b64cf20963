"""Conditions on cookies as conditions on the one header that holds them all.

Envoy's routes see all cookies of a request as one header (tried: it joins HTTP/2's cookie fields with ``; ``). Newer
Envoys have a matcher for single cookies, but an older one would pass over it and let every request match.
"""

from __future__ import annotations

import re2

from translator.envoy.shared import shared
from translator.objects.cookies import IN_VALUE, within_value
from translator.plan import Comparison, ValueMatch
from xds.api.envoy.config.route.v3 import HeaderMatcher
from xds.api.envoy.type.matcher.v3 import RegexMatcher, StringMatcher

COOKIE_HEADER = "cookie"


@shared
def has_cookie(name: str) -> HeaderMatcher:
    """Whether a request brings a cookie with a value."""
    return _header(name, f"{IN_VALUE}+")


def cookie(condition: ValueMatch) -> HeaderMatcher:
    """A condition on one cookie."""
    return _header(condition.name, _value(condition))


def _header(name: str, value: str) -> HeaderMatcher:
    # \C is any byte: other cookies may hold what is no UTF-8.
    regex = rf"(\C*; *)?{re2.escape(name)}={value}(;\C*)?"
    return HeaderMatcher(name=COOKIE_HEADER, string_match=StringMatcher(safe_regex=RegexMatcher(regex=regex)))


def _value(condition: ValueMatch) -> str:
    match condition.comparison:
        case Comparison.EXACT:
            return str(re2.escape(condition.value))
        case Comparison.PREFIX:
            return f"{re2.escape(condition.value)}{IN_VALUE}*"
        case Comparison.PRESENT:
            return f"{IN_VALUE}*"
        case _:
            return f"(?:{within_value(condition.value)})"
