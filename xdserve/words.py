"""Words of others, made fit to be shown: what an Envoy or another client says, in logs, errors and debug output."""

from __future__ import annotations

import re

LONGEST = 2_000
"""Characters that are shown of a text."""

HIDDEN = "[hidden]"

_PEM = re.compile(r"-----BEGIN .*?(?:-----END [^-]*-----|\Z)", re.DOTALL)
# What a message about a secret may repeat of it: what stands in quotes, also in one that is not closed, and long words.
_DATA = re.compile(r"""(["`]|(?<!\w)').*?(?:\1|\Z)|[\w+/=-]{40,}""")


def shown(text: str, limit: int = LONGEST) -> str:
    """One line of printable characters, cut when it is long; PEM blocks are left out."""
    # Cut first: the text may be as long as a request.
    cut = len(text) > 2 * limit
    line = escaped(_PEM.sub(HIDDEN, text[: 2 * limit]).strip())
    return line[:limit] + "..." if cut or len(line) > limit else line


def shown_of_secret(text: str) -> str:
    """The first line without anything that may have been repeated from a secret: quoted text and long words."""
    return _DATA.sub(HIDDEN, shown(next(iter(text.splitlines()), "")))


def escaped(text: str) -> str:
    """The text without control characters: what others say must not drive a terminal, nor begin a line of its own."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
