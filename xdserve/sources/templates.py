"""Tags of templates (Helm, Jinja) in a text that should be rendered: where one stands that keeps it from being read."""

from __future__ import annotations

import re

TAGS = ("{{", "{%")
_TAG = re.compile(r"\{[{%]")
_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")  # those of YAML
_NO_TAG = re.compile(r"""
    "(?:[^"\\]|\\.)*" | '[^']*' |  # quoted: a text, whatever is in it
    (?:^|(?<=\s))\#.*               # a comment
""", re.VERBOSE)  # fmt: skip
_LONGEST_LINE = 1_000


def unrendered(text: str, line: int) -> str | None:
    """What to say of a text that cannot be read because of this line (from 0); None if the line has no tag."""
    written = _LINE_BREAK.split(text, maxsplit=line + 1)
    if line >= len(written):
        return None
    shown = written[line][:_LONGEST_LINE]
    plain = _NO_TAG.sub(lambda found: " " * len(found[0]), shown)
    tag = _TAG.search(plain)
    return said(line + 1, tag.start() + 1, tag[0]) if tag else None


def unrendered_json(text: str, position: int, line: int, column: int) -> str | None:
    """The same of JSON, by where it ends to be JSON: at the tag, or right behind its first character."""
    for start in (position, position - 1):
        if start >= 0 and text.startswith(TAGS, start):
            return said(line, column + start - position, text[start : start + 2])
    return None


def said(line: int, column: int, tag: str) -> str:
    """``line 4, column 9: found {{, render the template first``."""
    return f"line {line}, column {column}: found {tag}, render the template first"
