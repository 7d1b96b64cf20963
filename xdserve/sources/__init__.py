"""Where objects come from. A source tells a feed what changed, and lists what is wrong with its texts now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol, TypeAlias

from translator.objects import Object, Problem, Ref

Reason: TypeAlias = Literal["Unreadable", "Invalid", "Conflicted"]


class Source(NamedTuple):
    """Where an object was written: the file, relative to the directory, and which of its documents (from 1)."""

    file: str
    document: int

    def __str__(self) -> str:
        return f"{self.file} document {self.document}"


class Put(NamedTuple):
    """An object is new, or has changed to this."""

    object: Object
    source: Source


class Gone(NamedTuple):
    """An object is not there any more."""

    ref: Ref


class Broken(NamedTuple):
    """The newest text of an object is invalid: what was last good stays, or nothing. ``ref`` may be unknown."""

    ref: Ref
    problems: tuple[Problem, ...]
    source: Source


Change: TypeAlias = Put | Gone | Broken


class Feed(Protocol):
    """Takes what a source finds."""

    def apply(self, changes: Sequence[Change]) -> None:
        """Take changes that belong together; the first call has all that is there.

        Also called without any when what is wrong has changed.
        """


class SourceError(NamedTuple):
    """One thing that is not as its author wants it. Equal while it lasts, so it can be told when it is new.

    ``object`` is None and ``field`` empty where the text does not say. ``document`` 0 is the file as a whole.
    """

    source: Source
    object: Ref | None
    field: str
    message: str
    reason: Reason

    def __str__(self) -> str:
        """``iris.yaml document 2: TrafficPolicy models/iris: spec.split[0].weight: found -1, allowed ...``."""
        where = str(self.source) if self.source.document else self.source.file
        return ": ".join(filter(None, (where, str(self.object or ""), self.field, self.message)))


class SourceNote(NamedTuple):
    """A document of a kind that is not read though it says something about traffic, and what to do."""

    source: Source
    object: Ref | None
    field: str
    message: str
