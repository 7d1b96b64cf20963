"""Which gateway each target is to have, and who of those whose gateways would be called the same may have it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from translator import names
from translator.objects.ref import Ref
from xdserve.kube.wanted import Wanted

Place = tuple[str, str]
"""Namespace, and name of all objects of a gateway."""


class Holders(Mapping[Ref, Wanted]):
    """What is wanted, by target. Of several that want one name the first has it, and the next when that wants none."""

    def __init__(self) -> None:
        self._wanted: dict[Ref, Wanted] = {}
        self._places: dict[Place, dict[Ref, None]] = {}

    def want(self, target: Ref, wanted: Wanted | None) -> list[Ref]:
        """A target is to have this gateway now, or (None) none; who has to be looked at for that."""
        if self._wanted.get(target) == wanted:
            return []
        place = (target.namespace, names.entrance(target))
        if wanted is not None:
            self._wanted[target] = wanted
            self._places.setdefault(place, {}).setdefault(target)
            return [target]
        del self._wanted[target]
        return [*self._given_up(place, target), target]

    def holder(self, place: Place) -> Ref | None:
        """Whose gateway may have that name."""
        return next(iter(self._places.get(place, ())), None)

    def _given_up(self, place: Place, target: Ref) -> list[Ref]:
        """Who may have a name that one of those who want it wants no more, if that is another than before."""
        held = self.holder(place) == target
        del self._places[place][target]
        if not self._places[place]:
            del self._places[place]
        following = self.holder(place)
        return [following] if held and following else []

    def __getitem__(self, target: Ref) -> Wanted:
        return self._wanted[target]

    def __iter__(self) -> Iterator[Ref]:
        return iter(self._wanted)

    def __len__(self) -> int:
        return len(self._wanted)
