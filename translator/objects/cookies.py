"""Regular expressions on cookies, kept within the one value they are about.

All cookies of a request stand in one header, parted by semicolons. An expression on a value is matched in the middle of
that header, so nothing in it may match a semicolon.
"""

from __future__ import annotations

import re

import re2

from translator.objects.fields import matches_whole

IN_VALUE = "[^;]"

# What can match more than itself: quoted text, codes, properties, escapes, classes, dots.
_PART = re.compile(
    r"\\Q.*?(?:\\E|$)|\\x\{[0-9a-fA-F]+\}|\\x[0-9a-fA-F]{2}|\\[0-7]{1,3}|\\[pP](?:\{\^?\w+\}|\w)|\\."
    r"|\[\^?\]?(?:\[:\^?\w+:\]|\\[pP]\{\^?\w+\}|\\.|[^\]\\])*\]|\.",
    re.DOTALL,
)
_CONFINED = {"\\S": r"[^\s;]", "\\D": r"[^\d;]", "\\W": r"[^\w;]", ".": IN_VALUE, "\\C": IN_VALUE}


def within_value(expression: str) -> str:
    """The expression, matching the same values and no semicolon.

    Anchors at its ends go: a value begins and ends in the middle of the header, and is matched whole anyway.

    Raises:
        ValueError: it names what holds a semicolon, which no value does.
    """
    bare = expression.removeprefix("^")
    if re.search(r"(?<!\\)(?:\\\\)*\$$", bare):
        bare = bare[:-1]
    if any(";" in literal for literal in _PART.split(bare)):
        raise ValueError(";")
    return _PART.sub(lambda part: _confined(part[0]), bare)


def _confined(part: str) -> str:
    confined = _CONFINED.get(part) or _negated(part)
    if (part.startswith("\\Q") and ";" in part) or (not part.startswith("\\Q") and _matches_semicolon(confined)):
        raise ValueError(part)
    return confined


def _negated(part: str) -> str:
    """What matches everything but something matches everything but that and a semicolon."""
    if part.startswith("\\P"):
        return rf"[^\p{part[2:]};]"
    if part.startswith("[^"):
        # What stands first in a class may mean itself there only: `]` and `-`.
        return "[^;" + ("\\" if part[2] in "]-" else "") + part[2:]
    return part


def _matches_semicolon(part: str) -> bool:
    """Whether a part that stands for one character can be a semicolon; what means nothing by itself cannot."""
    try:
        return matches_whole(part, ";")
    except re2.error:
        return False
