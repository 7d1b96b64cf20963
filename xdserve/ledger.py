"""What is not as its user wants it now, and since when: one list of what the sources and planning say."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
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
    """One thing that is wrong; ``place`` is None for what is wrong with an object wherever it stands."""

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
    """An entry, when it began, and the document that its object stands in now."""

    entry: Entry
    since: datetime
    place: Place | None


Subscriber = Callable[[frozenset[Ref]], None]
"""Is told the objects of which something else is said now, in the event loop. It must not raise, and not block."""


class Ledger:
    """All entries, by who says them. Each is logged once when it begins, and once when it is over."""

    def __init__(self, now: Callable[[], datetime], place_of: Callable[[Ref], Place | None]) -> None:
        """Make an empty one; ``place_of`` finds the document of an object, which may move while an entry lasts."""
        self._now = now
        self._place_of = place_of
        self._said: dict[Hashable, Mapping[Entry, datetime]] = {}
        self._subscribers: list[Subscriber] = []

    def subscribe(self, subscriber: Subscriber) -> None:
        """Be told of changes from now on."""
        self._subscribers.append(subscriber)

    def say(self, owner: Hashable, entries: Iterable[Entry]) -> None:
        """Replace all that an owner says; what it says again keeps its date."""
        before = self._said.get(owner, {})
        now = self._now()
        said = {entry: before.get(entry, now) for entry in entries}
        for entry in said.keys() - before.keys():
            logger.warning("not as wanted", **self._fields(entry))
        for entry in before.keys() - said.keys():
            logger.info("as wanted again", **self._fields(entry))
        self.keep(owner, said)

    def keep(self, owner: Hashable, said: Mapping[Entry, datetime]) -> None:
        """Replace all that an owner says, who knows since when, and who logs it."""
        before = self._said.get(owner, {})
        if said:
            self._said[owner] = said
        else:
            self._said.pop(owner, None)
        if changed := frozenset(one.object for one in before.keys() ^ said.keys() if one.object is not None):
            for subscriber in self._subscribers:
                subscriber(changed)

    def place(self, ref: Ref) -> Place | None:
        """The document of an object, where the source knows it."""
        return self._place_of(ref)

    def __iter__(self) -> Iterator[Dated]:
        """All of them, the oldest first; they may change while who reads takes pauses."""
        oldest_first = sorted(self._entries(), key=itemgetter(1))
        return (Dated(entry, since, self._place(entry)) for entry, since in oldest_first)

    def by_object(self) -> dict[Ref, list[Entry]]:
        """The entries of each object."""
        found: dict[Ref, list[Entry]] = {}
        for entry, _ in self._entries():
            if entry.object is not None:
                found.setdefault(entry.object, []).append(entry)
        return found

    def _entries(self) -> Iterator[tuple[Entry, datetime]]:
        return (item for said in self._said.values() for item in said.items())

    def __len__(self) -> int:
        return sum(map(len, self._said.values()))

    def _place(self, entry: Entry) -> Place | None:
        return self._place_of(entry.object) if entry.place is None and entry.object is not None else entry.place

    def _fields(self, entry: Entry) -> dict[str, object]:
        fields: dict[str, object] = {"reason": entry.reason}
        fields |= whereabouts(self._place(entry), entry.object)
        if entry.object is not None:
            fields["object"] = str(entry.object)
        return fields | {"field": entry.field, "message": entry.message}


def whereabouts(place: Place | None, ref: Ref | None) -> dict[str, object]:
    """The fields of a log line about a document; what is an object of no file is named by itself."""
    if place is None or (ref is not None and place.document == 0):
        return {}
    return {"file": place.file, "document": place.document}


def entry(finding: Finding) -> Entry:
    """What planning found."""
    return Entry(None, finding.origin.object, finding.origin.field, finding.reason.value, finding.message)
