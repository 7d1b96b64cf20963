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
    versions: Mapping[str, str],
    message: str,
    has: Callable[[str, str], bool],
    *,
    named: bool = True,
    partial: bool = False,
) -> Blame:
    """Find out whom the words mean.

    Envoy names clusters and listeners that it refuses, each before a colon, and not what else was in the response; of
    other types, and of what breaks a rule of the message itself, it names none: a name in such words is quoted from
    what a user wrote. What the client took before is blamed last.

    Args:
        versions: what the response put, by name.
        message: the words of the client.
        has: whether the client has acknowledged this version of the name before.
        named: whether the client names what it refuses of the type.
        partial: whether the response put more than is told here: then one that is alone may be innocent.
    """
    new = [name for name, version in versions.items() if not has(name, version)]
    among = new or list(versions)
    groups = (new, list(versions)) if named else ()
    culprits = next(filter(None, (_named(names, message) for names in groups)), [])
    if not culprits and len(among) == 1 and not partial:
        culprits = among
    return Blame(culprits, [] if culprits else among)


def _named(names: list[str], message: str) -> list[str]:
    """The names that stand in the text before a colon, as words of their own: one may be part of another."""
    found = (name for name in names if name in message)  # most are not, and making a pattern takes long
    return [name for name in found if re.search(rf"(?<![\w./-]){re.escape(name)}:", message)]
