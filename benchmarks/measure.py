"""What benchmarks share: a figure to print, and CPU time, which other work on the machine does not move."""

from __future__ import annotations

import gc
import math
import os
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


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


def once(fn: Callable[[], object]) -> float:
    """CPU seconds of one call, for what is done once, at start."""
    gc.collect()
    start = time.process_time()
    fn()
    return time.process_time() - start


def once_uncollected(fn: Callable[[], object]) -> float:
    """As `once`, with the garbage collector stopped meanwhile, as the program does in its first pass."""
    gc.collect()
    gc.disable()
    try:
        start = time.process_time()
        fn()
        return time.process_time() - start
    finally:
        gc.enable()


def quantile(samples: Sequence[float], share: float) -> float:
    """The sample below or at which this share of them is."""
    return sorted(samples)[max(0, math.ceil(share * len(samples)) - 1)]


def resident(pid: int | None = None) -> float:
    """Bytes of memory that a process holds now."""
    pages = Path(f"/proc/{pid or os.getpid()}/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()
