"""Objects as they are read at start: from what JSON gives (pydantic alone), and from a directory of YAML."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import fleet
from benchmarks.measure import Figure, once
from xdserve.offline.reading import read

SERVICES = 10_000
FILES = 500
"""Files written and read; the figure is for `SERVICES` of them."""


def _parsed() -> float:
    """CPU seconds of validating all documents, in lots, so that they need not all be held."""
    total = 0.0
    for first in range(0, SERVICES, FILES):
        documents = [document for number in range(first, first + FILES) for document in fleet.service(number)]
        start = time.process_time()
        fleet.read(documents)
        total += time.process_time() - start
    return total


def _scanned() -> tuple[float, int]:
    with TemporaryDirectory(prefix="xdserve-bench-") as name:
        folder = Path(name)
        fleet.write(folder, FILES)
        found: list[object] = []
        seconds = once(lambda: found.extend(read([folder]).files.objects()))
        return seconds, len(found)


def figures() -> list[Figure]:
    """The lines of the table."""
    seconds, count = _scanned()
    objects = 5 * SERVICES
    return [
        Figure("objects read from documents", _parsed(), "s", "< 5", f"{SERVICES:,} services, {objects:,} objects"),
        Figure(
            "objects read from YAML files",
            seconds * SERVICES / FILES,
            "s",
            "",
            f"{SERVICES:,} files; measured with {FILES:,} files, {count:,} objects",
        ),
    ]
