"""The store's files: who owns them, who may read them, and how a bad one gets out of the way."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

ASIDE = ".aside"
LOCK = ".lock"
# What SQLite puts beside a database.
_COMPANIONS = ("-wal", "-shm", "-journal")


class Owned(Exception):
    """Another process uses the file."""


def own(path: Path) -> int:
    """Become the one process that uses the file: a descriptor to be closed at the end.

    The kernel lets go of the lock with the process, however that ends. The side file stays: to remove it would let
    two processes lock two files of that name.

    Raises:
        Owned: another process has it.
        OSError: the directory cannot be made or written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(_beside(path, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise Owned from None
    except BaseException:
        os.close(lock)
        raise
    return lock


def make_private(path: Path) -> None:
    """Make the file, if it is not there, and let its owner alone read it; SQLite gives its companions the same mode.

    Raises:
        OSError: it cannot be opened for writing.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


def move_aside(path: Path) -> Path:
    """Rename the file and its companions; one that was moved before is replaced, so that they do not pile up.

    Raises:
        OSError: the directory cannot be written.
    """
    aside = _beside(path, ASIDE)
    path.replace(aside)
    for suffix in _COMPANIONS:
        old, new = _beside(path, suffix), _beside(aside, suffix)
        new.unlink(missing_ok=True)
        if old.exists():
            old.replace(new)
    return aside


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
