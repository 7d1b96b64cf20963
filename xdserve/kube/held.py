"""What the objects of the cluster say together: readings in, changes and present errors out. No I/O.

As with files the last good state of each object counts: one whose newest state is invalid is told, and stays.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from typing import NamedTuple

from translator.objects import EndpointSlice, Object, ObjectInvalid, Problem, Ref, ReferenceGrant, identify, parse
from xdserve.kube.frames import Document
from xdserve.kube.patches import PATHS, essence
from xdserve.kube.resources import RESOURCES
from xdserve.sources import Broken, Change, Gone, Put, Source, SourceError

_PLURALS = {(resource.group, resource.kind): resource.plural for resource in RESOURCES}
_WITHOUT_META = frozenset({EndpointSlice.KIND, ReferenceGrant.KIND})


class Meta(NamedTuple):
    """What who writes to an object must know of it: of its newest state, be that valid or not."""

    uid: str
    resource_version: str
    generation: int | None


class Reading(NamedTuple):
    """One object, understood by itself: the object, or what is wrong with it, or neither for one that says nothing."""

    ref: Ref
    object: Object | None
    problems: tuple[Problem, ...] = ()
    meta: Meta | None = None
    essence: Document | None = None
    """What a status is compared with and patched by: `xdserve.kube.patches.essence`."""


def understand(document: Document) -> Reading | None:
    """Read a document of the apiserver; None if it does not even say which object it is."""
    ref = identify(document)
    if ref is None:
        return None
    if ref.kind == EndpointSlice.KIND and document.get("addressType") == "FQDN":
        return Reading(ref, None)  # allowed there, meant for others, and no mistake of anybody's
    meta = None if ref.kind in _WITHOUT_META else _meta(document["metadata"])
    kept = essence(document) if ref.kind in PATHS else None
    try:
        return Reading(ref, parse(document), (), meta, kept)
    except ObjectInvalid as invalid:
        return Reading(ref, None, invalid.problems, meta, kept)


def _meta(found: Mapping[str, object]) -> Meta:
    generation = found.get("generation")
    return Meta(
        uid=str(found.get("uid", "")),
        resource_version=str(found.get("resourceVersion", "")),
        generation=generation if isinstance(generation, int) else None,
    )


def place(ref: Ref) -> Source:
    """Where an object is: ``inferenceservices/models/iris``."""
    return Source(f"{_PLURALS.get((ref.group, ref.kind), ref.kind.lower())}/{ref.namespace}/{ref.name}", 0)


class Held:
    """The state of all objects, by the scope that they came from.

    ``restated`` is called with an object of which only what `meta` or `document` gives is another: its status, say.
    """

    def __init__(self, restated: Callable[[Ref], None] = lambda _: None) -> None:
        self._restated = restated
        self._readings: dict[Ref, Reading] = {}
        self._scopes: dict[Hashable, set[Ref]] = {}
        self._broken: dict[Ref, None] = {}
        self._renewed: set[Ref] = set()

    def listed(self, scope: Hashable, readings: Iterable[Reading | None]) -> Iterator[Change]:
        """All that a scope has; what it had and has no more is gone."""
        found = {reading.ref: reading for reading in readings if reading is not None}
        for ref in self._scopes.get(scope, set()) - found.keys():
            yield from self.deleted(scope, ref)
        for reading in found.values():
            yield from self.upserted(scope, reading)

    def upserted(self, scope: Hashable, reading: Reading) -> Iterator[Change]:
        """An object is new, or has changed to this."""
        ref, before = reading.ref, self._readings.get(reading.ref)
        self._readings[ref] = reading
        self._scopes.setdefault(scope, set()).add(ref)
        self._note(ref, before.problems if before else (), reading.problems)
        if reading.problems:
            if before is None or before.problems != reading.problems:
                yield Broken(ref, reading.problems, place(ref))
        elif reading.object is None:
            if before is not None and (before.object or before.problems):
                yield Gone(ref)
        elif before is None or before.object != reading.object:
            yield Put(reading.object, place(ref))
        if before is not None and before.meta != reading.meta:
            self._restated(ref)

    def deleted(self, scope: Hashable, ref: Ref) -> Iterator[Change]:
        """An object is gone; one that is not held changes nothing."""
        before = self._readings.pop(ref, None)
        self._scopes.get(scope, set()).discard(ref)
        if before is not None:
            self._note(ref, before.problems, ())
            if before.object or before.problems:
                yield Gone(ref)

    def errors(self) -> Iterator[SourceError]:
        """All that is wrong with objects now, by object."""
        for ref in sorted(self._broken):
            yield from self._errors_of(ref)

    def renewed(self) -> Iterator[tuple[str, tuple[SourceError, ...]]]:
        """The objects with which something else is wrong than when this was asked last, and what it is now."""
        renewed, self._renewed = self._renewed, set()
        return ((place(ref).file, tuple(self._errors_of(ref))) for ref in sorted(renewed))

    def source(self, ref: Ref) -> Source | None:
        """Where an object is; None if the cluster does not have it."""
        return place(ref) if ref in self._readings else None

    def meta(self, ref: Ref) -> Meta | None:
        """Of an object's newest state."""
        reading = self._readings.get(ref)
        return reading.meta if reading else None

    def document(self, ref: Ref) -> Document | None:
        """Of an object's newest state what its status is written by."""
        reading = self._readings.get(ref)
        return reading.essence if reading else None

    @property
    def broken(self) -> Collection[Ref]:
        """The objects whose newest state is invalid."""
        return self._broken.keys()

    def __len__(self) -> int:
        return len(self._readings)

    def _note(self, ref: Ref, before: tuple[Problem, ...], now: tuple[Problem, ...]) -> None:
        if before == now:
            return
        self._renewed.add(ref)
        if now:
            self._broken[ref] = None
        else:
            self._broken.pop(ref, None)

    def _errors_of(self, ref: Ref) -> Iterator[SourceError]:
        reading = self._readings.get(ref)
        for problem in reading.problems if reading else ():
            yield SourceError(place(ref), ref, problem.field, problem.verdict, "Invalid")
