"""The directories below a root, each by one name however many links lead to it. All of this blocks."""

from __future__ import annotations

import errno
import os
from collections import deque
from pathlib import Path
from typing import NamedTuple, TypeAlias

DEEPEST = 64  # directories, one in the other

_Identity: TypeAlias = tuple[int, int]  # device and inode


class _Entry(NamedTuple):
    name: str
    is_directory: bool
    is_link: bool


class Directories:
    """What a walk has found; paths are relative to ``root``, which is ``""``.

    Links are followed, and each directory is visited once in a walk: links that lead around in a circle end, and
    those that fan out do not multiply. Of its names a directory has the one that is no link, else the first.
    """

    def __init__(self, root: Path) -> None:
        self.closed: dict[str, str] = {}  # directories that cannot be listed, and why
        self._root = root
        self._names: dict[str, _Identity] = {}
        self._by_identity: dict[_Identity, str] = {}
        self._aliases: dict[str, str] = {}  # other names of directories, and the name that each has

    def __contains__(self, path: object) -> bool:
        return path in self._names or path in self._aliases or path in self.closed

    def walk(self, top: str, suffixes: tuple[str, ...]) -> tuple[str, set[str]]:
        """Every file below a directory with such an ending, and each directory that cannot be listed.

        Which names directories have only a walk of all can tell: where there are several it is one, and says so by
        the first part of what it returns, the directory that was walked.
        """
        found = self._walk(top, suffixes)
        if top and self._aliases:
            top, found = "", self._walk("", suffixes)
        return top, found

    def own_name(self, path: str) -> str:
        """A path by the names that directories have here: events may come by another one."""
        parts = path.split("/")
        for end in range(1, len(parts)):
            name = self._aliases.get("/".join(parts[:end]))
            if name is not None:
                return self.own_name("/".join(filter(None, [name, *parts[end:]])))
        return path

    def _walk(self, top: str, suffixes: tuple[str, ...]) -> set[str]:
        self._forget(top)
        found: set[str] = set()
        plain, links = [top], deque[str]()
        while plain or links:
            directory = plain.pop() if plain else links.popleft()
            try:
                entries = self._visit(directory)
            except OSError as error:
                self.closed[directory] = f"cannot be listed: {error.strerror}"
                found.add(directory)
                continue
            for entry in entries:
                path = f"{directory}/{entry.name}" if directory else entry.name
                if entry.is_directory:
                    (links if entry.is_link else plain).append(path)
                elif path.endswith(suffixes):
                    found.add(path)
        return found

    def _forget(self, top: str) -> None:
        self._names = {path: each for path, each in self._names.items() if not is_inside(path, top)}
        self._by_identity = {each: path for path, each in self._names.items()}
        self._aliases = {path: each for path, each in self._aliases.items() if not is_inside(path, top)}
        self.closed = {path: why for path, why in self.closed.items() if not is_inside(path, top)}

    def _visit(self, directory: str) -> list[_Entry]:
        """What is in a directory; nothing if it is gone, or known by another name.

        Raises:
            OSError: it is closed to us, or too deep.
        """
        if directory.count("/") >= DEEPEST:
            raise OSError(errno.ELOOP, f"found more than {DEEPEST} directories one in the other")
        try:
            status = (self._root / directory).stat()
            identity = (status.st_dev, status.st_ino)
            if identity in self._by_identity:
                self._aliases[directory] = self._by_identity[identity]
                return []
            entries = _list(self._root / directory)
        except (FileNotFoundError, NotADirectoryError):  # it went while it was looked at
            return []
        self._names[directory] = identity
        self._by_identity[identity] = directory
        return entries


def is_inside(path: str, directory: str) -> bool:
    """Whether a path is a directory's, or below it."""
    return not directory or path == directory or path.startswith(f"{directory}/")


def _list(directory: Path) -> list[_Entry]:
    """What is in a directory that has no dot in front, in order."""
    with os.scandir(directory) as listing:
        shown = [each for each in listing if not each.name.startswith(".")]
        return sorted(_Entry(each.name, _is_directory(each), each.is_symlink()) for each in shown)


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads nowhere
        return False
