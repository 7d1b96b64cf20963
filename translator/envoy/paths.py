"""Conditions on a path: every spelling that a model server takes for the same path meets the same rule."""

from __future__ import annotations

import re

import re2

from translator.objects.paths import NORMALISED

_TWO_DIGITS = re.compile(r"[0-9A-Fa-f]{2}")
_PART = re.compile(r"%[0-9A-F]{2}|.", re.DOTALL)


def is_plain(path: str) -> bool:
    """True if a canonical path has one spelling."""
    return NORMALISED.issuperset(path)


def exact(path: str) -> str:
    """The expression for all spellings of a canonical path."""
    return _PART.sub(_spellings, path)


def prefix(path: str) -> str:
    """The expression for the same and every path below it."""
    return exact(path) + r"(?:/\C*)?"


def _spellings(match: re.Match[str]) -> str:
    part = match[0]
    if part == "%25" and not _TWO_DIGITS.match(match.string, match.end()):
        return "%(?:25)?"  # Envoy passes a sign that begins no escape
    if part in NORMALISED:
        return str(re2.escape(part))
    if len(part) > 1:
        return _any_case(part)
    return f"(?:{re2.escape(part)}|{_any_case(f'%{ord(part):02X}')})"


def _any_case(escape: str) -> str:
    """The digits of an escape are in either case."""
    return "".join(f"[{digit}{digit.lower()}]" if digit.isalpha() else digit for digit in escape)
