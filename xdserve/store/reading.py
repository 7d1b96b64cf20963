"""All that the file holds, made into values once; nothing in it is believed before it is checked."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import groupby
from typing import Any, NamedTuple, TypeAlias

from xds.memory import Memory
from xds.wire.resource import Resource
from xdserve.store import rows
from xdserve.store.active import Active, ActiveRow, active_of
from xdserve.store.policies import AcceptedRow, Policies, policies_of
from xdserve.store.rows import Frame, Good, Key, Refused
from xdserve.store.schema import Unusable

Memories: TypeAlias = Mapping[str, Sequence[Memory]]
"""What is remembered, by gateway."""


class Content(NamedTuple):
    """All that a file holds."""

    memories: Memories
    policies: Policies
    active: Active


_ALL_FRAMES = "SELECT digest, version, frame, uses, vacant, slow FROM frames"
_ALL_GOOD = "SELECT gateway, type, name, digest, position, origin FROM good ORDER BY gateway, type, name, position"
_ALL_REFUSED = (
    "SELECT gateway, type, name, position, version, code, message, node, cause FROM refused "
    "ORDER BY gateway, type, name, position"
)
_ALL_ACCEPTED = "SELECT target, file, document, digest FROM accepted ORDER BY target"
_ALL_ACTIVE = "SELECT target, entry, predictor, explainer, digest FROM active ORDER BY target"

# What rows that this program did not write raise: a column of another type, a word it does not know.
_STRANGE = (ValueError, TypeError, KeyError, AttributeError)


def read(database: sqlite3.Connection) -> Content:
    """Everything in the file. Equal frames are one object.

    Raises:
        Unusable: a row is not as this program writes it.
        sqlite3.Error: damage (see is_damage), or the machine cannot read it.
    """
    try:
        policies = policies_of(map(AcceptedRow._make, database.execute(_ALL_ACCEPTED)))
        active = active_of(map(ActiveRow._make, database.execute(_ALL_ACTIVE)))
        return Content(_memories(database), policies, active)
    except _STRANGE as error:
        raise Unusable("it is damaged") from error


def _memories(database: sqlite3.Connection) -> Memories:
    frames = _Frames(map(Frame._make, database.execute(_ALL_FRAMES)))
    good = {
        key: tuple(frames.resource(key, Good._make(row[3:])) for row in found)
        for key, found in _by_key(database.execute(_ALL_GOOD))
    }
    refused = {
        key: tuple(rows.refusal_of(Refused._make(row[3:])) for row in found)
        for key, found in _by_key(database.execute(_ALL_REFUSED))
    }
    memories: dict[str, list[Memory]] = {}
    for key in good | refused:
        memory = Memory(
            type=rows.TYPES[key.type],
            name=rows.text(key.name),
            good=good.get(key, ()),
            refused=refused.get(key, ()),
        )
        memories.setdefault(rows.text(key.gateway), []).append(memory)
    return memories


def _by_key(found: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Key, Iterator[tuple[Any, ...]]]]:
    return groupby(found, lambda row: Key._make(row[:3]))


class _Frames:
    """The rows of `frames`; what is written in many rows alike is made into a value once."""

    def __init__(self, frames: Iterable[Frame]) -> None:
        self._frames = {frame.digest: frame for frame in frames}
        self._uses = cache(lambda written: frozenset(json.loads(written)))
        self._origin = cache(rows.read_origin)

    def resource(self, key: Key, good: Good) -> Resource:
        frame = self._frames[good.digest]
        if rows.digest_of(key, frame) != good.digest:
            raise ValueError("a frame was altered, or is of another name")
        return Resource(
            type=rows.TYPES[key.type],
            name=rows.text(key.name),
            version=rows.text(frame.version),
            parts=(frame.frame,),
            uses=self._uses(frame.uses),
            vacant=bool(frame.vacant),
            slow=bool(frame.slow),
            origin=self._origin(good.origin),
        )
