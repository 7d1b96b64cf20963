"""What benchmarks share: a figure to print, and CPU time, which other work on the machine does not move."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Figure:
    """A line of the table."""

    name: str
    value: float
    unit: str
    target: str = ""
    note: str = ""


def cpu(fn: Callable[[], object], *, repeat: int = 5, number: int = 100) -> float:
    """CPU seconds a call: the least of some repeats, after one call to warm up."""
    fn()
    gc.collect()
    best = float("inf")
    for _ in range(repeat):
        start = time.process_time()
        for _ in range(number):
            fn()
        best = min(best, (time.process_time() - start) / number)
    return best
