"""Conditions on a path: every spelling that a model server takes for the same path meets the same rule."""

from __future__ import annotations

import re
from string import ascii_letters, digits

import re2

_NORMALISED = frozenset(ascii_letters + digits + "-._~/")
"""What reaches the routes in one spelling: Envoy decodes these (``/`` by a redirect)."""

_PART = re.compile(r"%[0-9A-F]{2}|.", re.DOTALL)


def is_plain(path: str) -> bool:
    """Whether a canonical path has one spelling."""
    return _NORMALISED.issuperset(path)


def exact(path: str) -> str:
    """The expression for all spellings of a canonical path."""
    return "".join(_spellings(part) for part in _PART.findall(path))


def prefix(path: str) -> str:
    """The expression for the same and every path below it."""
    return exact(path) + r"(?:/\C*)?"


def _spellings(part: str) -> str:
    if part in _NORMALISED:
        return str(re2.escape(part))
    if len(part) > 1:
        return _any_case(part)
    return f"(?:{re2.escape(part)}|{_any_case(f'%{ord(part):02X}')})"


def _any_case(escape: str) -> str:
    """The digits of an escape are in either case."""
    return "".join(f"[{digit}{digit.lower()}]" if digit.isalpha() else digit for digit in escape)
