"""How many new streams are let in: a rate, never a number, so that a fleet of any size gets in. Pure."""

from __future__ import annotations


class TokenBucket:
    """Lets `rate` through a second, and up to `burst` at once after a pause. Time is an argument, in seconds.

    Args:
        rate: tokens that come in a second, above 0.
        burst: tokens that it holds at most, at least 1; it starts full.

    Raises:
        ValueError: nothing could ever pass.
    """

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float) -> None:
        if not (rate > 0 and burst >= 1):
            raise ValueError(f"a rate of {rate:g}/s with a burst of {burst:g} lets nothing through")
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at: float | None = None

    def take(self, now: float) -> bool:
        """Take a token, if there is one."""
        passed = 0.0 if self._at is None else max(0.0, now - self._at)
        self._tokens = min(self._burst, self._tokens + passed * self._rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
