"""`xdserve diff`: what a change of objects sends to the Envoys of each gateway.

The new texts are applied to what the old ones gave, as a running server applies them: where a new text is bad, the
last good one goes on being served, and a gateway that has lost its target answers 404.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from translator.planners.options import Options
from xds.types import ResourceType
from xds.wire import Resource
from xds.wire.resource import delta_response
from xdserve.offline.findings import Said, found
from xdserve.offline.planning import Plans
from xdserve.offline.readable import readable
from xdserve.offline.reading import below, read
from xdserve.printing import printable
from xdserve.sources import Change as ObjectChange
from xdserve.sources.files import Files, Reading

Held = Mapping[tuple[ResourceType, str], Resource]

_NONCE, _IDENTIFIER = "0" * 12, "xdserve"  # of usual length: they count as bytes sent


class Verb(StrEnum):
    """What happens to a resource; `again` is an unchanged assignment that Envoy wants after its changed cluster."""

    ADDED = "added"
    CHANGED = "changed"
    REMOVED = "removed"
    AGAIN = "sent again"


@dataclass(frozen=True, slots=True)
class Change:
    """One resource before and after."""

    kind: ResourceType
    name: str
    before: Resource | None
    after: Resource | None

    @property
    def verb(self) -> Verb:
        """What happens to it."""
        if self.before is None:
            return Verb.ADDED
        if self.after is None:
            return Verb.REMOVED
        return Verb.AGAIN if self.before.version == self.after.version else Verb.CHANGED

    def lines(self) -> list[str]:
        """The lines of a unified diff of the two, with ``+`` and ``-``; without its head."""
        before, after = (readable(printable(each)).splitlines() if each else [] for each in (self.before, self.after))
        return list(difflib.unified_diff(before, after, lineterm="", n=2))[2:]


@dataclass(frozen=True, slots=True)
class GatewayChange:
    """What one gateway's Envoys are sent, in the order of sending."""

    name: str
    is_new: bool
    has_target: bool
    changes: tuple[Change, ...]

    @property
    def cuts_streams(self) -> bool:
        """Whether a listener changes under running streams."""
        return any(each.kind is ResourceType.LISTENER and each.before for each in self.changes)

    @property
    def bytes(self) -> int:
        """Bytes of the responses that one Envoy gets."""
        return sum(self._response(kind) for kind in ResourceType)

    def _response(self, kind: ResourceType) -> int:
        put = [each.after for each in self.changes if each.kind is kind and each.after]
        gone = [each.name for each in self.changes if each.kind is kind and not each.after]
        return len(delta_response(kind, _NONCE, put, gone, _IDENTIFIER)) if put or gone else 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """All that a change of objects does; ``new`` and ``mended`` are findings."""

    gateways: tuple[GatewayChange, ...]
    new: list[Said]
    mended: list[Said]

    def __bool__(self) -> bool:
        return bool(self.gateways or self.new or self.mended)

    def count(self, *verbs: Verb) -> int:
        """How many resources these things happen to."""
        return sum(each.verb in verbs for gateway in self.gateways for each in gateway.changes)


def compare(old: Path, new: Path, options: Options, context: Iterable[Path] = ()) -> Comparison:
    """Compare what the objects of two files or directories give; what ``context`` has is there too, before and after.

    Raises:
        SourceUnavailable: a directory cannot be read.
    """
    readings = _readings(old, new)
    files = Files()
    for reading in readings[0]:
        files.apply(reading)
    # A gateway that loses its target while Envoys are connected answers 404.
    plans = Plans.of(files, options, envoys=1, context=read((), context).context)
    before, said = _held(plans), found(files, plans)
    plans.apply(_updates(files, *readings))
    return _comparison(plans, before, said, found(files, plans))


def _readings(old: Path, new: Path) -> tuple[list[Reading], list[Reading]]:
    """Two single files are two states of one, whatever they are called."""
    alike = not old.is_dir() and not new.is_dir() and old.suffix == new.suffix
    return below(old, new.name if alike else old.name), below(new, new.name)


def _updates(files: Files, old: Iterable[Reading], new: Iterable[Reading]) -> list[ObjectChange]:
    """The new texts before what is gone: an object that moves to another file is not gone in between."""
    new = list(new)
    gone = {each.path for each in old} - {each.path for each in new}
    readings = (*new, *(Reading(path) for path in sorted(gone)))
    return [change for reading in readings for change in files.apply(reading).changes]


def _held(plans: Plans) -> dict[str, Held]:
    return {
        name: {(each.type, each.name): each for each in scope.resources()}
        for name, scope in plans.scopes.scopes.items()
    }


def _comparison(plans: Plans, before: Mapping[str, Held], said: list[Said], now: list[Said]) -> Comparison:
    after = _held(plans)
    gateways = (_gateway(plans, name, before.get(name), after.get(name, {})) for name in sorted({*before, *after}))
    had, has = {_key(each): each for each in said}, {_key(each): each for each in now}
    return Comparison(
        tuple(gateway for gateway in gateways if gateway.changes),
        [each for key, each in has.items() if key not in had],
        [each for key, each in had.items() if key not in has],
    )


def _gateway(plans: Plans, name: str, before: Held | None, after: Held) -> GatewayChange:
    changes = tuple(_changes(before or {}, after))
    return GatewayChange(name, before is None, name in plans.pipeline.owners, changes)


def _changes(before: Held, after: Held) -> Iterator[Change]:
    """By type in the order of sending, then by name."""
    order = list(ResourceType)
    keys = sorted({*before, *after}, key=lambda key: (order.index(key[0]), key[1]))
    sent = {key for key in keys if key in after and (key not in before or before[key].version != after[key].version)}
    for kind, name in keys:
        key = kind, name
        again = kind is ResourceType.ENDPOINT and key in after and (ResourceType.CLUSTER, name) in sent
        if key in sent or key not in after or again:
            yield Change(kind, name, before.get(key), after.get(key))


def _key(said: Said) -> Said:
    """A finding, wherever in its file it stands now; and in whatever file, if it says whom it is about."""
    entry = said.entry
    at = None if entry.object or entry.place is None else entry.place._replace(document=0)
    return Said(said.severity, entry._replace(place=at))
