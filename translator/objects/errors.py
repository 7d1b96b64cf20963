"""What is wrong with an object, said so that its author can mend it: field, what was found, what is allowed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from translator.objects.ref import Ref

NOT_YET = "not yet supported"
_LONGEST_FOUND = 60
_LONGEST_PATH_PART = 80


class Problem(NamedTuple):
    """One field that is not as it should be; every part is one line."""

    field: str
    found: str
    allowed: str

    def __str__(self) -> str:
        """``spec.split[0].weight: found -1, allowed 0..1000000``."""
        return f"{self.field}: {self.verdict}"

    @property
    def verdict(self) -> str:
        """``found -1, allowed 0..1000000``."""
        allowed = NOT_YET if self.allowed == NOT_YET else f"allowed {self.allowed}"
        return f"found {self.found}, {allowed}"


class ObjectInvalid(ValueError):
    """An object cannot be used as it is written.

    ``ref`` is None if not even its kind and name can be told. ``problems`` are all that were found, in the
    order of the fields; there is always one.
    """

    def __init__(self, ref: Ref | None, problems: tuple[Problem, ...]) -> None:
        self.ref = ref
        self.problems = problems
        super().__init__(ref, problems)

    def __str__(self) -> str:
        """``TrafficPolicy models/iris: spec.split[0].weight: found -1, allowed 0..1000000 (and 2 more)``."""
        named = f"{self.ref}: " if self.ref else ""
        return named + in_one_line(self.problems)


def in_one_line(problems: Sequence[Problem]) -> str:
    """The first problem, and how many there are beside it."""
    others = len(problems) - 1
    return f"{problems[0]} (and {others} more)" if others else str(problems[0])


def show(value: object) -> str:
    """A value as a message may show it: one line, short, and of a list or map never the content."""
    if isinstance(value, Mapping):
        return f"a map of {len(value)}"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if value is None:
        return "nothing"
    if isinstance(value, str | bool | float):
        return shorten(json.dumps(value[: _LONGEST_FOUND + 1] if isinstance(value, str) else value))
    if isinstance(value, int):
        # The digits of a huge number are neither wanted nor, beyond Python's own limit, to be had.
        return str(value) if value.bit_length() <= 128 else f"a number of {value.bit_length()} bits"
    return f"a {type(value).__name__}"


def shorten(text: str, longest: int = _LONGEST_FOUND) -> str:
    """The text, cut to at most ``longest`` characters."""
    return text if len(text) <= longest else text[: longest - 3] + "..."


def one_line(text: str) -> str:
    """The text with what would break a line of a log or a terminal written as an escape."""
    return text if text.isprintable() else json.dumps(text, ensure_ascii=True)[1:-1]


def path_of(parts: Sequence[str | int]) -> str:
    """``spec.rules[0].name``; what is no plain word stands in brackets: ``metadata.labels[a.b/c]``."""
    path = ""
    for part in parts:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.isascii() and part.replace("_", "a").replace("-", "a").isalnum() and len(part) <= 63:
            path += f".{part}" if path else part
        else:
            path += f"[{shorten(json.dumps(part[:_LONGEST_PATH_PART])[1:-1], _LONGEST_PATH_PART)}]"
    return path
