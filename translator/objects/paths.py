"""A path that a rule is written for, in the one form that is compared: without escapes that mean a plain character.

Model servers decode a path before they route (RFC 3986, 2.1), so ``%3A`` and ``:`` reach the same handler. Envoy
decodes letters, digits and ``-._~`` alone (tried), so a rule has to match both spellings of all other characters.
"""

from __future__ import annotations

import re
from string import ascii_letters, digits

NORMALISED = frozenset(ascii_letters + digits + "-._~/")
"""These reach the routes of a gateway in one spelling: Envoy decodes them (``/`` by a redirect)."""

_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})|%")
_PLAIN = frozenset(map(chr, range(0x20, 0x7F))) - {"/", "\\", "%"}


def canonical(path: str) -> str:
    """The path with every escape of a printable character of ASCII decoded, and the others in upper case.

    A ``%`` is ``%25``, also where it begins no escape: what follows it is none either. ``%2F`` and ``%5C`` stay: they
    are no separators.
    """
    return _ESCAPE.sub(_decoded, path)


def _decoded(escape: re.Match[str]) -> str:
    character = chr(int(escape[1], 16)) if escape[1] else "%"
    return character if character in _PLAIN else f"%{ord(character):02X}"


def spelled_length(path: str) -> int:
    """About how many characters its condition takes in a route: one that has two spellings takes 14."""
    return len(path) + sum(13 for character in path if character not in NORMALISED)
