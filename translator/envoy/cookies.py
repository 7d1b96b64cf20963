"""Conditions on cookies as conditions on the one header that holds them all.

Envoy's routes see all cookies of a request as one header (tried: it joins HTTP/2's cookie fields with ``; ``). Newer
Envoys have a matcher for single cookies, but an older one would pass over it and let every request match.
"""

from __future__ import annotations

import re

import re2

from translator.envoy.shared import shared
from translator.plan import Comparison, ValueMatch
from xds.api.envoy.config.route.v3 import HeaderMatcher
from xds.api.envoy.type.matcher.v3 import RegexMatcher, StringMatcher

COOKIE_HEADER = "cookie"

IN_VALUE = "[^;]"

# What an expression is made of, as far as it can match a semicolon: classes, escapes, quoted text, dots.
_PART = re.compile(r"\\Q.*?(?:\\E|$)|\\[pP](?:\{\^?\w+\}|\w)|\\.|\[\^?\]?(?:\[:\^?\w+:\]|\\.|[^\]\\])*\]|\.", re.DOTALL)
_BEYOND = {"\\S": r"[^\s;]", "\\D": r"[^\d;]", "\\W": r"[^\w;]", ".": IN_VALUE, "\\C": IN_VALUE}


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


def within_value(expression: str) -> str:
    """The expression kept from matching beyond a cookie's value, which ends at a semicolon.

    Anchors at its ends go: the value begins and ends in the middle of the header, and is matched whole anyway.
    """
    bare = expression.removeprefix("^")
    if re.search(r"(?<!\\)(?:\\\\)*\$$", bare):
        bare = bare[:-1]
    return _PART.sub(lambda part: _confined(part[0]), bare)


def _confined(part: str) -> str:
    if part in _BEYOND:
        return _BEYOND[part]
    if part.startswith("\\P"):
        return rf"[^\p{part[2:]};]"
    if part.startswith("[^"):
        # What stands first in a class may mean itself there only: `]` and `-`.
        return "[^;" + ("\\" if part[2] in "]-" else "") + part[2:]
    return part
