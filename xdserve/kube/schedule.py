"""When each thing is due, and how many may be done in a time. Pure: the caller brings the time."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)

QUIET_SECONDS = 0.1
LONGEST_SECONDS = 1.0


class Schedule(Generic[T]):
    """What is marked, once each: due soon after it was marked last, and not long after it was marked first."""

    def __init__(self, quiet: float = QUIET_SECONDS, longest: float = LONGEST_SECONDS) -> None:
        self._quiet, self._longest = quiet, longest
        self._first: dict[T, float] = {}
        self._due: dict[T, float] = {}

    def mark(self, thing: T, now: float) -> None:
        """Something happened to it."""
        first = self._first.setdefault(thing, now)
        self._due[thing] = min(now + self._quiet, max(now, first + self._longest))

    def later(self, thing: T, at: float) -> None:
        """It is to be looked at again then, or when it is marked before."""
        self._due[thing] = min(at, self._due.get(thing, at))

    def take(self, now: float, most: int) -> list[T]:
        """Take out what is due, in the order in which it was marked."""
        taken = [thing for thing, due in self._due.items() if due <= now][:most]
        for thing in taken:
            del self._due[thing]
            self._first.pop(thing, None)
        return taken

    def wait(self, now: float) -> float | None:
        """Seconds until something is due; None if nothing is marked."""
        return max(0.0, min(self._due.values()) - now) if self._due else None

    def forget(self, thing: T) -> None:
        """It is no more."""
        self._due.pop(thing, None)
        self._first.pop(thing, None)

    def clear(self) -> None:
        """Forget all."""
        self._due.clear()
        self._first.clear()

    def __len__(self) -> int:
        return len(self._due)


class Budget:
    """So many at once, then one in so many seconds."""

    def __init__(self, burst: float, refill: float, now: float) -> None:
        self._burst, self._refill = burst, refill
        self._left, self._since = float(burst), now

    def take(self, now: float) -> float:
        """Take one: 0. Where there is none, the seconds until there is."""
        self._left = min(self._burst, self._left + (now - self._since) / self._refill)
        self._since = now
        if self._left < 1:
            return (1 - self._left) * self._refill
        self._left -= 1
        return 0.0
