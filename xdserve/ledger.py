"""What is not as its user wants it now, and since when: one list of what the sources and planning say."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import structlog

from translator.objects.ref import Ref
from translator.plan import CONDITION_OF, Condition, Finding, Reason

logger = structlog.get_logger("xdserve.errors")

UNREADABLE = "Unreadable"
"""The reason of what cannot be told to be an object at all."""


class Place(NamedTuple):
    """Where a document stands: the file, relative to the source, and the document in it, from 1 (0: all of it)."""

    file: str
    document: int


class Entry(NamedTuple):
    """One thing that is wrong; ``place`` is None for an object whose source has no files."""

    place: Place | None
    object: Ref | None
    field: str
    reason: str
    message: str

    @property
    def condition(self) -> Condition | None:
        """The condition of the object that this makes false."""
        return Condition.ACCEPTED if self.reason == UNREADABLE else CONDITION_OF[Reason(self.reason)]


@dataclass(frozen=True, slots=True)
class Dated:
    """An entry and when it began."""

    entry: Entry
    since: datetime


class Ledger:
    """All entries, by who says them. Each is logged once when it begins, and once when it is over."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._said: dict[Hashable, dict[Entry, datetime]] = {}

    def say(self, owner: Hashable, entries: Iterable[Entry]) -> None:
        """Replace all that an owner says; what it says again keeps its date."""
        before = self._said.get(owner, {})
        now = self._now()
        said = {entry: before.get(entry, now) for entry in entries}
        for entry in said.keys() - before.keys():
            logger.warning("not as wanted", **_fields(entry))
        for entry in before.keys() - said.keys():
            logger.info("as wanted again", **_fields(entry))
        if said:
            self._said[owner] = said
        else:
            self._said.pop(owner, None)

    def __iter__(self) -> Iterator[Dated]:
        return (Dated(entry, since) for said in self._said.values() for entry, since in said.items())

    def __len__(self) -> int:
        return sum(map(len, self._said.values()))

    def of(self, ref: Ref) -> list[Entry]:
        """What is wrong with one object."""
        return [entry for said in self._said.values() for entry in said if entry.object == ref]


def entry(finding: Finding, place: Place | None) -> Entry:
    """What planning found, with the document it is about."""
    return Entry(place, finding.origin.object, finding.origin.field, finding.reason.value, finding.message)


def _fields(entry: Entry) -> dict[str, object]:
    fields: dict[str, object] = {"reason": entry.reason}
    if entry.place is not None:
        fields |= {"file": entry.place.file, "document": entry.place.document}
    if entry.object is not None:
        fields["object"] = str(entry.object)
    return fields | {"field": entry.field, "message": entry.message}
