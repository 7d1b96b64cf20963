"""Files, directories and standard input as commands are given them. This blocks.

Nothing here raises for what is in a file or keeps it from being read: that is one more thing to tell its author.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from xdserve.sources.documents import LARGEST_FILE
from xdserve.sources.files import Files, Reading, understand, unreadable
from xdserve.sources.tree import SourceUnavailable, Tree, shown

STDIN = Path("-")
STDIN_NAME = "<stdin>"


class Read(NamedTuple):
    """What files say, what is there beside them, and how many files were read for the former."""

    files: Files
    context: Files
    number: int


class _Found(NamedTuple):
    """A file to read, or a directory of which it is known why it cannot be listed."""

    path: Path
    closed: str | None = None


def read(paths: Iterable[Path], context: Iterable[Path] = ()) -> Read:
    """Read everything; a file that is named twice, in whatever way, is read once."""
    seen: set[str] = set()
    files, beside = Files(), Files()
    for reading in _readings(paths, seen):
        files.apply(reading)
    number = len(seen)
    for reading in _readings(context, seen):
        beside.apply(reading)
    return Read(files, beside, number)


def below(path: Path, name: str) -> list[Reading]:
    """What one path says: the files of a directory named as a server of it names them, a single file by ``name``.

    Raises:
        SourceUnavailable: the directory cannot be read.
    """
    if path != STDIN and path.is_dir():
        return [_reading(found, str(found.path.relative_to(path))) for found in _listed(path)]
    return [_reading(_Found(path), name)]


def _readings(paths: Iterable[Path], seen: set[str]) -> Iterator[Reading]:
    for path in paths:
        try:
            listed = _listed(path) if path != STDIN and path.is_dir() else [_Found(path)]
        except SourceUnavailable as error:
            yield unreadable(shown(str(path)), str(error))
            continue
        for found in listed:
            where = str(found.path) if found.path == STDIN else str(found.path.absolute())
            if where not in seen:
                seen.add(where)
                yield _reading(found, str(found.path))


def _listed(directory: Path) -> list[_Found]:
    tree = Tree(directory)
    tree.check()
    return [_Found(directory / path, closed) for path, closed in tree.found().items()]


def _reading(found: _Found, name: str) -> Reading:
    return unreadable(shown(name), found.closed) if found.closed else _read(found.path, name)


def _read(path: Path, name: str) -> Reading:
    if path == STDIN:
        return understand(STDIN_NAME, sys.stdin.buffer.read(LARGEST_FILE + 1))
    try:
        with path.open("rb") as stream:
            return understand(shown(name), stream.read(LARGEST_FILE + 1))
    except OSError as error:
        return unreadable(shown(name), f"cannot be read: {error.strerror}")
