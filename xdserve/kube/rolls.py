"""How many gateways have their pods replaced at a time. Pure: the caller brings the time.

A new image or bootstrap is for all gateways at once. If their pods do not start, that is to be the trouble of few: who
began and does not become available holds its place, so that no other gets the same change; another change may begin.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import NamedTuple

from translator.objects.ref import Ref

ROLLING = 20
"""Gateways at a time."""
ROLL_SECONDS = 300.0
"""After that pods that are not available count as ones that will not be."""


class _Roll(NamedTuple):
    change: Hashable
    since: float
    well: bool
    made: int = 0


class Rolls:
    """Who rolls, and who waits for it. What is changed is the operator's change, or None for a gateway's own."""

    def __init__(self) -> None:
        self._rolling: dict[Ref, _Roll] = {}
        self._waiting: dict[Ref, Hashable] = {}

    def __contains__(self, target: Ref) -> bool:
        """Whether it rolls."""
        return target in self._rolling

    @property
    def waiting(self) -> tuple[Ref, ...]:
        """Who waits, the first first."""
        return tuple(self._waiting)

    def begin(self, target: Ref, change: Hashable, now: float, *, well: bool) -> bool:
        """Whether a gateway's pods may be replaced now; if not it waits. `well`: they are available as yet."""
        before = self._rolling.get(target)
        if before is None and not self.free(change, now):
            self._waiting[target] = change
            return False
        self._waiting.pop(target, None)
        since = before.since if before and before.change == change else now
        self._rolling[target] = _Roll(change, since, well or (before is not None and before.well))
        return True

    def resume(self, target: Ref, change: Hashable, now: float) -> None:
        """It rolled before anybody asked here."""
        self._rolling.setdefault(target, _Roll(change, now, well=True))

    def waits(self, target: Ref, change: Hashable, now: float) -> bool:
        """Whether it waits for that change, and has still to."""
        return self._waiting.get(target, _NO_CHANGE) == change and not self.free(change, now)

    def free(self, change: Hashable, now: float) -> int:
        """How many more may begin with a change. A gateway's own does not wait for those that do not come."""
        counted = (roll for roll in self._rolling.values() if change is not None or not _late(roll, now))
        return max(0, ROLLING - sum(1 for _ in counted))

    def came(self, target: Ref, made: int, now: float) -> None:
        """So many of its pods are new ones: of many replicas each has its time."""
        roll = self._rolling[target]
        if made > roll.made:
            self._rolling[target] = roll._replace(since=now, made=made)

    def over(self, target: Ref, change: Hashable, now: float) -> bool:
        """Whether a gateway that is not available is waited for no more: it never was, or by another change."""
        roll = self._rolling[target]
        return _late(roll, now) and not (roll.well and roll.change is not None and roll.change == change)

    def end(self, target: Ref) -> None:
        """Its pods are available, or it is no more."""
        self._rolling.pop(target, None)
        self._waiting.pop(target, None)

    def next(self, now: float) -> list[Ref]:
        """Who of those that wait may begin now."""
        return list(self._next(now))

    def stuck(self, now: float) -> list[Ref]:
        """Those whose pods do not become available, if because of them no other may begin."""
        late = [target for target, roll in self._rolling.items() if _late(roll, now)]
        return late if len(late) >= ROLLING else []

    def clear(self) -> None:
        """Another replica leads."""
        self._rolling.clear()
        self._waiting.clear()

    def _next(self, now: float) -> Iterator[Ref]:
        given: dict[Hashable, int] = {}
        for target, change in self._waiting.items():
            left = given.setdefault(change, self.free(change, now))
            if left:
                given[change] = left - 1
                yield target


_NO_CHANGE = object()


def _late(roll: _Roll, now: float) -> bool:
    return now - roll.since >= ROLL_SECONDS
