"""How many new streams are let in: a rate, never a number, so that a fleet of any size gets in. Pure."""

from __future__ import annotations

from collections import OrderedDict
from math import inf
from typing import TypeVar

_K = TypeVar("_K")
_V = TypeVar("_V")

REMEMBERED = 60.0
"""Seconds for which it counts that a host has failed."""

MOST_REMEMBERED = 10_000
"""Hosts that failed, proofs that were right, and peers that were let in, that are remembered; the latest."""


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
        if not self.has(now):
            return False
        self._tokens -= 1
        return True

    def has(self, now: float) -> bool:
        """Whether there is a token."""
        passed = 0.0 if self._at is None else max(0.0, now - self._at)
        self._tokens = min(self._burst, self._tokens + passed * self._rate)
        self._at = now
        return self._tokens >= 1


class Shares:
    """Lets new streams in at a rate, of which one peer alone gets half: who comes without end leaves room for others.

    Of the peers that came last it is known what they had. Who is forgotten begins anew.

    Args:
        rate: streams a second.
        burst: streams at once after a pause.
    """

    __slots__ = ("_all", "_each", "_half")

    def __init__(self, rate: float, burst: float) -> None:
        self._all = TokenBucket(rate, burst)
        self._half = rate / 2, max(1.0, burst / 2)
        self._each: OrderedDict[object, TokenBucket] = OrderedDict()

    def take(self, who: object, now: float) -> bool:
        """Let a stream of a peer in, if there is room. None is nobody in particular, who may have all."""
        own = None if who is None else self._each.get(who) or TokenBucket(*self._half)
        if (own is not None and not own.has(now)) or not self._all.take(now):
            return False
        if own is not None:
            own.take(now)
            _remember(self._each, who, own)
        return True


class Failures:
    """Who failed to say who it is, so that no authenticator is asked about strangers without end. Times in seconds.

    While more fail than the rate, a peer is not asked about if one of its host failed in the last minute, unless what
    it brings was right before. So strangers keep out nobody but who comes for the first time from a host of theirs,
    and that one by chance. Both memories are bounded; who is forgotten is asked about.

    Args:
        rate: failures a second.
        burst: failures at once after a pause.
    """

    __slots__ = ("_bucket", "_failed", "_right")

    def __init__(self, rate: float, burst: float) -> None:
        self._bucket = TokenBucket(rate, burst)
        self._failed: OrderedDict[str, float] = OrderedDict()
        self._right: OrderedDict[bytes, float] = OrderedDict()

    def allow(self, host: str, proof: bytes, now: float) -> bool:
        """Whether a peer is to be asked about that comes from a host; `proof` is a digest of what it brings."""
        return proof in self._right or self._failed.get(host, -inf) <= now - REMEMBERED or self._bucket.has(now)

    def failed(self, host: str, proof: bytes, now: float) -> None:
        """A peer of a host is unknown by what it brings."""
        self._bucket.take(now)
        self._right.pop(proof, None)
        _remember(self._failed, host, now)

    def succeeded(self, proof: bytes, now: float) -> None:
        """A proof was right."""
        _remember(self._right, proof, now)


def _remember(memory: OrderedDict[_K, _V], key: _K, value: _V) -> None:
    memory[key] = value
    memory.move_to_end(key)
    if len(memory) > MOST_REMEMBERED:
        memory.popitem(last=False)
