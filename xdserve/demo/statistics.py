"""Exact intervals for observed shares, so that a check of a split fails by bad luck once in a million runs."""

from __future__ import annotations

from collections.abc import Mapping
from math import exp, lgamma, log, log1p
from statistics import median

ERROR = 1e-6


def interval(successes: int, trials: int, error: float = ERROR) -> tuple[float, float]:
    """The Clopper-Pearson interval: shares that `successes` of `trials` do not contradict at `error` (both sides)."""
    if trials <= 0 or not 0 <= successes <= trials:
        raise ValueError(f"{successes} of {trials} is no count of successes")
    return _low(successes, trials, error / 2), 1.0 - _low(trials - successes, trials, error / 2)


def intervals(counts: Mapping[str, int], error: float = ERROR) -> dict[str, tuple[float, float]]:
    """An interval for each name's share, together true with probability 1 - `error`. Empty without any count."""
    total = sum(counts.values())
    if not total:
        return {}
    return {name: interval(count, total, error / len(counts)) for name, count in counts.items()}


def agrees(wanted: Mapping[str, float], counts: Mapping[str, int], error: float = ERROR) -> bool:
    """Whether `counts` may come from the `wanted` shares; a name wanted at 0 must not occur, nor one not wanted."""
    if not sum(counts.values()) or any(count and not wanted.get(name) for name, count in counts.items()):
        return False
    found = intervals({name: counts.get(name, 0) for name in wanted}, error)
    return all(low <= wanted[name] <= high for name, (low, high) in found.items())


def percentile(values: list[float], share: float) -> float:
    """The smallest of `values` that `share` of them do not exceed (nearest rank)."""
    ordered = sorted(values)
    rank = max(1, -int(-share * len(ordered) // 1))
    return ordered[rank - 1]


def summary(values: list[float]) -> dict[str, float | int | list[float]]:
    """How many, median, p99 and all of `values`, rounded to thousandths."""
    return {
        "edits": len(values),
        "median": round(median(values), 3),
        "p99": round(percentile(values, 0.99), 3),
        "values": [round(value, 3) for value in values],
    }


def _low(successes: int, trials: int, tail: float) -> float:
    """The share at which `successes` or more of `trials` have the probability `tail`, by bisection."""
    if successes == 0:
        return 0.0
    low, high = 0.0, successes / trials
    for _ in range(60):
        middle = (low + high) / 2
        if _upper_tail(successes, trials, middle) < tail:
            low = middle
        else:
            high = middle
    return low


def _upper_tail(successes: int, trials: int, share: float) -> float:
    """P(X >= successes) for `share` <= successes/trials: from there on the terms only shrink, so few matter."""
    term = _probability(successes, trials, share)
    total = term
    odds = share / (1 - share)
    for k in range(successes, trials):
        term *= (trials - k) / (k + 1) * odds
        total += term
        if term < total * 1e-17:
            break
    return total


def _probability(successes: int, trials: int, share: float) -> float:
    if not 0 < share < 1:
        return float(share >= 1 and successes == trials)
    ways = lgamma(trials + 1) - lgamma(successes + 1) - lgamma(trials - successes + 1)
    return exp(ways + successes * log(share) + (trials - successes) * log1p(-share))
