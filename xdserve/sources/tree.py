"""The files below a directory: which there are, and what each says now. All of this blocks."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from translator.objects.errors import one_line
from xdserve.sources.documents import LARGEST_FILE
from xdserve.sources.files import Reading, understand, unreadable
from xdserve.sources.walk import Directories, is_inside

SUFFIXES = (".yaml", ".yml", ".json")

_PAGE = 4096  # a file beyond it may be seen half written when it is written in place


class SourceUnavailable(Exception):
    """There is no directory to read; the text says which, and why."""


class Stamp(NamedTuple):
    """While it stays the same, so does the text (but for writes within one tick of the file system's clock)."""

    mtime_ns: int
    size: int
    inode: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What a file was; both parts are None if it was not there."""

    stamp: Stamp | None = None
    digest: int | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """What a file is found to be; ``rewritten`` if it was written in place and is not small."""

    path: str
    seen: Seen
    reading: Reading
    rewritten: bool = False


class Wanted(NamedTuple):
    """Files to look at: all of ``listed`` that have another stamp, ``exact`` ones however they look."""

    exact: set[str]
    listed: set[str]


_ABSENT = Seen()


class Tree:
    """The files below a root, by their path relative to it, and what each was when it was last accepted."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._seen: dict[str, Seen] = {}
        self._directories = Directories(self.root)

    def check(self) -> None:
        """See that there is a directory that can be listed.

        Raises:
            SourceUnavailable: there is not.
        """
        try:
            with os.scandir(self.root):
                pass
        except OSError as error:
            raise SourceUnavailable(f"{self.root}: {error.strerror}") from error

    def identity(self) -> tuple[int, int]:
        """Which directory the root is now.

        Raises:
            SourceUnavailable: there is none.
        """
        try:
            status = self.root.stat()
        except OSError as error:
            raise SourceUnavailable(f"{self.root}: {error.strerror}") from error
        return status.st_dev, status.st_ino

    def everything(self) -> Wanted:
        """Every file that is or was there."""
        return Wanted(set(), self._below(""))

    def touched(self, paths: Iterable[str]) -> Wanted:
        """The files that events at these absolute paths may be about."""
        wanted = Wanted(set(), set())
        for path in paths:
            self._touched(os.path.relpath(path, self.root), wanted)
        return wanted

    def found(self) -> dict[str, str | None]:
        """Every file that is there, in order, and every directory that cannot be listed, with the reason why."""
        paths = sorted(self.everything().listed)
        closed = self._directories.closed
        return {path: closed.get(path) for path in paths if path in closed or self._is_file(path)}

    def look(self, wanted: Wanted) -> list[Look]:
        """What those files are that are not what they were."""
        looks = (self._look(path, always=path in wanted.exact) for path in sorted(wanted.exact | wanted.listed))
        return [look for look in looks if look]

    def accept(self, look: Look) -> None:
        """Take a file for what it was found to be; only a change from that is news."""
        self._remember(look.path, look.seen)

    def _remember(self, path: str, seen: Seen) -> None:
        if seen == _ABSENT:
            self._seen.pop(path, None)
        else:
            self._seen[path] = seen

    def _touched(self, path: str, wanted: Wanted) -> None:
        if path == ".":
            wanted.listed.update(self._below(""))
            return
        if path in self._seen:
            wanted.exact.add(path)
        path = self._directories.own_name(path)
        parts = path.split("/")
        hidden = next((index for index, part in enumerate(parts) if part.startswith(".")), None)
        if hidden is not None:
            # The ..data of a mounted ConfigMap or Secret is what the files beside it are links to.
            if parts[hidden].startswith(".."):
                wanted.listed.update(self._below("/".join(parts[:hidden])))
        elif path in self._directories or (self.root / path).is_dir():
            wanted.listed.update(self._below(path))
        elif path.endswith(SUFFIXES):
            wanted.exact.add(path)

    def _below(self, directory: str) -> set[str]:
        walked, found = self._directories.walk(directory, SUFFIXES)
        return found | {path for path in self._seen if is_inside(path, walked)}

    def _look(self, path: str, *, always: bool) -> Look | None:
        """What a file is now; None if that is what it was."""
        seen = self._seen.get(path, _ABSENT)
        if path in self._directories.closed:
            return _unreadable(path, seen, self._directories.closed[path])
        try:
            stamp = self._stamp(path)
            if stamp == seen.stamp and not always:
                return None
            content = (self.root / path).read_bytes() if stamp and stamp.size <= LARGEST_FILE else None
        except OSError as error:
            return _unreadable(path, seen, f"cannot be read: {error.strerror}")
        if stamp and content is None:
            return _unreadable(path, seen, f"found {stamp.size} bytes, allowed {LARGEST_FILE}")
        now = Seen(stamp, None if content is None else hash(content))
        if now.digest == seen.digest:
            self._remember(path, now)
            return None
        in_place = stamp is not None and seen.stamp is not None and stamp.inode == seen.stamp.inode
        rewritten = in_place and stamp is not None and stamp.size > _PAGE
        return Look(path, now, understand(shown(path), content), rewritten)

    def _is_file(self, path: str) -> bool:
        try:
            return self._stamp(path) is not None
        except OSError:  # reading it tells why
            return True

    def _stamp(self, path: str) -> Stamp | None:
        """None also for what is no file (to open a pipe waits for who writes into it), or has another name now."""
        if self._directories.own_name(path) != path:
            return None
        try:
            status = (self.root / path).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not stat.S_ISREG(status.st_mode):
            return None
        return Stamp(status.st_mtime_ns, status.st_size, status.st_ino)


def _unreadable(path: str, seen: Seen, message: str) -> Look | None:
    now = Seen(Stamp(0, 0, 0), hash(message))
    return None if now == seen else Look(path, now, unreadable(shown(path), message))


def shown(path: str) -> str:
    """A path as messages may have it: file names may be no text, or have line ends in them."""
    return one_line(path.encode("utf-8", "backslashreplace").decode()) or "."
