"""Files, directories and standard input as commands are given them. This blocks.

Nothing here raises for what is in a file or keeps it from being read: that is one more thing to tell its author.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from translator.objects.errors import one_line
from xdserve.sources.documents import LARGEST_FILE
from xdserve.sources.files import Files, Reading, understand, unreadable
from xdserve.sources.tree import SourceUnavailable, Tree

STDIN = Path("-")
STDIN_NAME = "<stdin>"


class Read(NamedTuple):
    """What files say, what is there beside them, and how many files were read for the former."""

    files: Files
    context: Files
    number: int


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
        return [_read(file, str(file.relative_to(path))) for file in _listed(path)]
    return [_read(path, name)]


def _readings(paths: Iterable[Path], seen: set[str]) -> Iterator[Reading]:
    for path in paths:
        try:
            found = _listed(path) if path != STDIN and path.is_dir() else [path]
        except SourceUnavailable as error:
            yield unreadable(_shown(str(path)), str(error))
            continue
        for file in found:
            where = str(file) if file == STDIN else str(file.absolute())
            if where not in seen:
                seen.add(where)
                yield _read(file, str(file))


def _listed(directory: Path) -> list[Path]:
    tree = Tree(directory)
    tree.check()
    return [directory / path for path in sorted(tree.everything().listed)]


def _read(path: Path, name: str) -> Reading:
    if path == STDIN:
        return understand(STDIN_NAME, sys.stdin.buffer.read(LARGEST_FILE + 1))
    try:
        with path.open("rb") as stream:
            return understand(_shown(name), stream.read(LARGEST_FILE + 1))
    except OSError as error:
        return unreadable(_shown(name), f"cannot be read: {error.strerror}")


def _shown(path: str) -> str:
    """A path as messages may have it: file names may be no text, or have line ends in them."""
    return one_line(path.encode("utf-8", "backslashreplace").decode())
