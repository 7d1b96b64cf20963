"""What the files of a directory say together: their texts in, changes and present errors out. No I/O.

The rules (docs: directory source): the last good text of each object counts; a text in which something cannot be
told keeps what its file held before, and so does an empty one; of an object in two files the first path has it.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from dataclasses import field as default
from typing import NamedTuple

from translator.objects import Object, ObjectInvalid, Problem, Ref, identify, parse
from translator.objects.passed_over import passed_over
from xdserve.sources import Broken, Change, Gone, Put, Source, SourceError, SourceNote
from xdserve.sources.documents import read

EMPTY = "the file is empty; what it held before stays until it is filled or deleted"


class Claim(NamedTuple):
    """What one file says of one object: the object, or what is wrong with it."""

    source: Source
    object: Object | None
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """A file's text, understood by itself. ``complete`` says that every document could be told.

    ``cut`` is whether the text looks as if more is to come.
    """

    path: str
    claims: dict[Ref, Claim] = default(default_factory=dict)
    errors: tuple[SourceError, ...] = ()
    complete: bool = True
    cut: bool = False
    notes: tuple[SourceNote, ...] = ()


class Update(NamedTuple):
    """What a file's new text changes, and whether what is wrong is another now."""

    changes: tuple[Change, ...]
    errors_changed: bool


def understand(path: str, content: bytes | None) -> Reading:
    """Read one file's text; None is a file that is not there."""
    if content is None:
        return Reading(path)
    if not content.strip():
        return unreadable(path, EMPTY)
    documents, stop = read(path, content)
    reader = _Reader(path)
    for document in documents:
        reader.take(Source(path, document.index), document.value)
    if stop:
        reader.refuse(Source(path, stop.index), "", stop.message)
    # A prefix of JSON is no JSON, but one of YAML often is YAML.
    cut = not path.endswith(".json") and not content.endswith(b"\n")
    errors, notes = tuple(reader.errors), tuple(reader.notes)
    return Reading(path, reader.claims, errors, complete=reader.complete, cut=cut, notes=notes)


def unreadable(path: str, message: str) -> Reading:
    """A file of whose text nothing can be told."""
    return Reading(path, errors=(SourceError(Source(path, 0), None, "", message, "Unreadable"),), complete=False)


class _Reader:
    """Collects what the documents of one file claim."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.claims: dict[Ref, Claim] = {}
        self.errors: list[SourceError] = []
        self.notes: list[SourceNote] = []
        self.complete = True

    def take(self, source: Source, document: object) -> None:
        try:
            found = parse(document)
        except ObjectInvalid as invalid:
            if invalid.ref is None:
                for problem in invalid.problems:
                    self.refuse(source, problem.field, problem.verdict)
            else:
                self._claim(invalid.ref, Claim(source, None, invalid.problems))
            return
        if found is not None:
            self._claim(found.ref, Claim(source, found))
        elif note := passed_over(document):
            self.notes.append(SourceNote(source, identify(document), *note))

    def _claim(self, ref: Ref, claim: Claim) -> None:
        first = self.claims.setdefault(ref, claim)
        if first is not claim:
            self.errors.append(_conflict(ref, claim.source, first.source))

    def refuse(self, source: Source, field: str, message: str) -> None:
        self.complete = False
        self.errors.append(SourceError(source, None, field, message, "Unreadable"))


class Files:
    """The state of all files. ``update`` is the only way in."""

    def __init__(self) -> None:
        self._readings: dict[str, Reading] = {}
        self._claimants: dict[Ref, list[str]] = {}  # the paths that claim an object, the one that has it first
        self._errors: dict[str, tuple[SourceError, ...]] = {}  # by path; only those that have any
        self._renewed: set[str] = set()

    def update(self, path: str, content: bytes | None) -> Update:
        """A file has a new text, or (None) is gone."""
        return self.apply(understand(path, content))

    def doubts(self, reading: Reading) -> bool:
        """Whether a text may be half of one: it loses something, or does not read well, or ends in mid-line.

        Such a text is to be looked at again before it is applied.
        """
        held = self._held(reading.path)
        if reading.cut or not reading.complete or not held.keys() <= reading.claims.keys():
            return True
        return any(claim.object is None for claim in reading.claims.values())

    def rivals(self, reading: Reading) -> set[str]:
        """The files that hold what a text claims and its file does not hold yet."""
        new = reading.claims.keys() - self._held(reading.path).keys()
        return set(self._also_claimed(new))

    def apply(self, reading: Reading) -> Update:
        """A file's new text, understood."""
        old, new = self._held(reading.path), dict(reading.claims)
        if not reading.complete:
            new = {**old, **new}
        touched = [*old, *(ref for ref in new if ref not in old)]
        before = {ref: self._owner_claim(ref) for ref in touched}
        self._store(Reading(reading.path, new, reading.errors, notes=reading.notes), old, new)
        changes = tuple(_changes((ref, before[ref], self._owner_claim(ref)) for ref in touched))
        return Update(changes, self._renew_errors({reading.path, *self._also_claimed(touched)}))

    def errors(self) -> list[SourceError]:
        """All that is wrong now, by path."""
        return [error for path in sorted(self._errors) for error in self._errors[path]]

    def notes(self) -> list[SourceNote]:
        """The documents that are not read though they say something about traffic, by path."""
        return [note for path in sorted(self._readings) for note in self._readings[path].notes]

    def renewed(self) -> list[tuple[str, tuple[SourceError, ...]]]:
        """The files with which something else is wrong than when this was asked last, and what it is now."""
        renewed, self._renewed = self._renewed, set()
        return [(path, self._errors.get(path, ())) for path in sorted(renewed)]

    def source(self, ref: Ref) -> Source | None:
        """Where an object is written now."""
        claim = self._owner_claim(ref)
        return claim.source if claim else None

    def objects(self) -> Iterator[Object]:
        """Every object whose present text is good."""
        for ref in self._claimants:
            claim = self._owner_claim(ref)
            if claim and claim.object is not None:
                yield claim.object

    def paths(self) -> Iterable[str]:
        """Every file that holds something, or has errors or notes."""
        return self._readings.keys()

    def _held(self, path: str) -> dict[Ref, Claim]:
        reading = self._readings.get(path)
        return reading.claims if reading else {}

    def _owner_claim(self, ref: Ref) -> Claim | None:
        paths = self._claimants.get(ref)
        return self._readings[paths[0]].claims[ref] if paths else None

    def _also_claimed(self, refs: Iterable[Ref]) -> Iterator[str]:
        for ref in refs:
            yield from self._claimants.get(ref, ())

    def _store(self, reading: Reading, old: dict[Ref, Claim], new: dict[Ref, Claim]) -> None:
        path = reading.path
        for ref in old.keys() - new.keys():
            self._claimants[ref].remove(path)
            if not self._claimants[ref]:
                del self._claimants[ref]
        for ref in new.keys() - old.keys():
            insort(self._claimants.setdefault(ref, []), path)
        if reading.claims or reading.errors or reading.notes:
            self._readings[path] = reading
        else:
            self._readings.pop(path, None)

    def _renew_errors(self, paths: set[str]) -> bool:
        """Tell again what is wrong in these files."""
        changed = False
        for path in paths:
            had = self._errors.pop(path, ())
            has = tuple(self._errors_of(path))
            if has:
                self._errors[path] = has
            if has != had:
                changed = True
                self._renewed.add(path)
        return changed

    def _errors_of(self, path: str) -> Iterator[SourceError]:
        reading = self._readings.get(path)
        if reading is None:
            return
        yield from reading.errors
        for ref, claim in reading.claims.items():
            first = self._claimants[ref][0]
            if first != path:
                yield _conflict(ref, claim.source, self._readings[first].claims[ref].source)
            for problem in claim.problems:
                yield SourceError(claim.source, ref, problem.field, problem.verdict, "Invalid")


def _changes(moves: Iterable[tuple[Ref, Claim | None, Claim | None]]) -> Iterator[Change]:
    for ref, before, after in moves:
        if after is None:
            yield Gone(ref)
        elif after.object is None:
            if before is None or before.problems != after.problems:
                yield Broken(ref, after.problems, after.source)
        elif before is None or before.object != after.object:
            yield Put(after.object, after.source)


def _conflict(ref: Ref, source: Source, first: Source) -> SourceError:
    return SourceError(source, ref, "metadata.name", f"is written already in {first}", "Conflicted")
