"""Whom a NACK means: Envoy refuses a response of many resources with one text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple


class Blame(NamedTuple):
    """The names that were surely refused, and those of which one was."""

    culprits: list[str]
    suspects: list[str]


def blame(
    versions: Mapping[str, str], message: str, is_good: Callable[[str, str], bool], *, partial: bool = False
) -> Blame:
    """Find out whom the words mean.

    Envoy names clusters and listeners that it refuses and not what else was in the response; of a route configuration,
    and of what breaks a rule of the message itself, it names none. Where no name is said, what an Envoy of the
    gateway runs already is blamed last.

    Args:
        versions: what the response put, by name.
        message: the words of the client.
        is_good: whether an Envoy of the gateway has acknowledged this version of the name.
        partial: whether the response put more than is told here: then one that is alone may be innocent.
    """
    new = [name for name, version in versions.items() if not is_good(name, version)]
    among = new or list(versions)
    culprits = _named(list(versions), message) or (among if len(among) == 1 and not partial else [])
    return Blame(culprits, [] if culprits else among)


def _named(names: list[str], message: str) -> list[str]:
    """The names that stand in the text as words of their own: one may be part of another."""
    found = (name for name in names if name in message)  # most are not, and making a pattern takes long
    return [name for name in found if re.search(rf"(?<![\w./-]){re.escape(name)}(?![\w/-]|\.\w)", message)]
