"""When the status of another project's object may be written: its own controller is to have finished first. Pure.

KServe's controller reads an InferenceService, works, and puts the whole status, bound to the version that it has read.
A write of ours in between makes it fail and begin anew. So ours waits until that status speaks of the newest
generation and nobody has written to the object for a moment; but not for ever, for the controller may not run.

KServe copies `observedGeneration` from the Deployment that it makes: autoscaling takes it beyond the object's own
generation, and an edit that changes no Deployment leaves it behind. So beyond counts as settled, and behind counts as
settled when the generation is `longest` seconds old.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from translator.objects.ref import KSERVE, KUBEDL, Ref

QUIET_SECONDS = 2.0
LONGEST_SECONDS = 30.0

_OTHERS = frozenset({KSERVE, KUBEDL})
_OBSERVES = frozenset({KSERVE})
"""Groups whose status says of which generation it speaks."""


class Bounds(NamedTuple):
    """How long a write waits.

    `quiet`: seconds without another write. `longest`: seconds after which it waits no more.
    """

    quiet: float = QUIET_SECONDS
    longest: float = LONGEST_SECONDS


BOUNDS = Bounds()


@dataclass(slots=True)
class Settling:
    """What is known of one object's writes."""

    version: str = ""
    changed: float = 0.0
    """When somebody else was seen to have written."""
    generation: int | None = None
    edited: float = 0.0
    """When this generation was seen first."""
    wished: float | None = None
    """Since when a write waits."""

    def see(self, document: Mapping[str, Any], now: float) -> None:
        """The object as it is now."""
        metadata = document["metadata"]
        if metadata.get("resourceVersion") != self.version:
            self.version, self.changed = metadata.get("resourceVersion"), now
        if metadata.get("generation") != self.generation:
            self.generation, self.edited = metadata.get("generation"), now

    def wrote(self, version: str) -> None:
        """A write of ours made this version."""
        self.version, self.wished = version, None

    def wishes_nothing(self) -> None:
        """The object says what is to be said."""
        self.wished = None

    def until(self, ref: Ref, document: Mapping[str, Any], now: float, bounds: Bounds) -> float:
        """When the object that was seen may be written to, if nobody else writes first; at the latest `now` if it may.

        To be asked when there is something to write.
        """
        if ref.group not in _OTHERS:
            return now
        if self.wished is None:
            self.wished = now
        settled = self.changed + bounds.quiet
        if ref.group in _OBSERVES and _behind(document):
            settled = max(settled, self.edited + bounds.longest)
        return min(settled, self.wished + bounds.longest)


def _behind(document: Mapping[str, Any]) -> bool:
    """Whether the status speaks of an older generation, or of none as before the controller has seen the object."""
    observed = (document.get("status") or {}).get("observedGeneration")
    return not isinstance(observed, int) or observed < document["metadata"].get("generation", 0)
