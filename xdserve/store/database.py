"""The store itself: one file, one owner, one transaction a save. It blocks; `keeper.py` keeps it off the event loop."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from translator.objects.ref import Ref
from translator.planners.components import ActiveComponents
from xds.memory import Memory
from xds.types import ResourceType
from xdserve.store import rows
from xdserve.store.active import Active, active_row
from xdserve.store.files import Owned, move_aside, own
from xdserve.store.policies import Accepted, Policies, accepted_row, target_key
from xdserve.store.reading import Content, Memories, read
from xdserve.store.rows import Good, Key
from xdserve.store.schema import Unusable, connect, is_damage

logger = structlog.get_logger("xdserve.store")

_GOOD = "SELECT digest, position, origin FROM good WHERE gateway = ? AND type = ? AND name = ?"
_PUT_GOOD = (
    "INSERT INTO good (gateway, type, name, digest, position, origin) VALUES (?, ?, ?, ?, ?, ?) "
    "ON CONFLICT DO UPDATE SET position = excluded.position, origin = excluded.origin"
)
_DROP_GOOD = "DELETE FROM good WHERE gateway = ? AND type = ? AND name = ? AND digest = ?"
_PUT_FRAME = (
    "INSERT INTO frames (digest, version, frame, uses, vacant, slow) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
_REFUSED = (
    "SELECT position, version, code, message, node, cause FROM refused "
    "WHERE gateway = ? AND type = ? AND name = ? ORDER BY position"
)
_PUT_REFUSED = (
    "INSERT INTO refused (gateway, type, name, position, version, code, message, node, cause) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_DROP_REFUSED = "DELETE FROM refused WHERE gateway = ? AND type = ? AND name = ?"
_PUT_ACCEPTED = (
    "INSERT INTO accepted (target, file, document, digest) VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE "
    "SET file = excluded.file, document = excluded.document, digest = excluded.digest WHERE digest <> excluded.digest"
)
_DROP_ACCEPTED = "DELETE FROM accepted WHERE target = ?"
_PUT_ACTIVE = (
    "INSERT INTO active (target, entry, predictor, explainer, digest) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE "
    "SET entry = excluded.entry, predictor = excluded.predictor, explainer = excluded.explainer, "
    "digest = excluded.digest WHERE digest <> excluded.digest"
)
_DROP_ACTIVE = "DELETE FROM active WHERE target = ?"


class Store:
    """What Envoys acknowledged and refused, by gateway, type and name, and what is in force, by target.

    In a file that outlives the process.

    Secrets are never written, whoever asks for it: a key on the disk would outlive its rotation. The store's
    directory is made with mode 0700 and its file with 0600 all the same. Not for two threads at once.
    """

    def __init__(self, path: Path, database: sqlite3.Connection, lock: int, content: Content) -> None:
        """Take over an open database; use `open`."""
        self.path = path
        self._database = database
        self._lock = lock
        self._content = content

    @classmethod
    def open(cls, path: Path) -> Store | None:
        """Read the file, or begin one; None, and one log line that says why, if there can be no store.

        A file that is damaged, of another schema or not ours is renamed (`.aside`) and a new one begun. Nothing that
        is wrong with it is raised: the server does without. Blocks, for a second or two with 60,000 resources.
        """
        try:
            lock = own(path)
        except Owned:
            _say_none(path, "another process uses it")
            return None
        except OSError as error:
            _say_none(path, str(error))
            return None
        try:
            database, content = _read_or_begin(path)
        except (OSError, sqlite3.Error, Unusable) as error:
            os.close(lock)
            _say_none(path, str(error))
            return None
        except BaseException:
            os.close(lock)
            raise
        return cls(path, database, lock, content)

    def load(self) -> Memories:
        """What `open` has read of gateways. Once: the store itself keeps nothing in memory."""
        memories, self._content = self._content.memories, self._content._replace(memories={})
        return memories

    def policies(self) -> Policies:
        """What `open` has read of policies. Once, too."""
        policies, self._content = self._content.policies, self._content._replace(policies={})
        return policies

    def active(self) -> Active:
        """What `open` has read of active components. Once, too."""
        active, self._content = self._content.active, self._content._replace(active={})
        return active

    def save(
        self,
        changes: Iterable[tuple[str, Iterable[Memory]]],
        forget: Iterable[str] = (),
        policies: Iterable[tuple[Ref, Accepted | None]] = (),
        active: Iterable[tuple[Ref, ActiveComponents | None]] = (),
    ) -> int:
        """Forget all of some gateways, then put memories in place of those of the same names; all of it or nothing.

        ``policies`` and ``active`` components are put in place of those of the same targets; None is a target that has
        none any more.
        A memory of nothing is deleted. What the file has already is not written again: the number of changed rows.

        Raises:
            sqlite3.Error: nothing was changed (disk full, read-only, interrupted, closed).
        """
        before = self._database.total_changes
        with self._transaction():
            for gateway in forget:
                self._forget(rows.blob(gateway))
            for gateway, memories in changes:
                for memory in memories:
                    self._put(gateway, memory)
            for target, accepted in policies:
                self._accept(target, accepted)
            for target, components in active:
                self._activate(target, components)
        return self._database.total_changes - before

    def interrupt(self) -> None:
        """End the statement that another thread is in; its save raises sqlite3.OperationalError."""
        self._database.interrupt()

    def close(self) -> None:
        """Let go of the file; a second close does nothing."""
        self._database.close()
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Without a write in it, it leaves the files untouched."""
        self._database.execute("BEGIN")
        try:
            yield
            self._database.execute("COMMIT")
        finally:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")

    def _forget(self, gateway: bytes) -> None:
        self._database.execute("DELETE FROM good WHERE gateway = ?", (gateway,))
        self._database.execute("DELETE FROM refused WHERE gateway = ?", (gateway,))

    def _accept(self, target: Ref, accepted: Accepted | None) -> None:
        if accepted is None:
            self._database.execute(_DROP_ACCEPTED, (target_key(target),))
        else:
            self._database.execute(_PUT_ACCEPTED, accepted_row(target, accepted))

    def _activate(self, target: Ref, active: ActiveComponents | None) -> None:
        if active is None:
            self._database.execute(_DROP_ACTIVE, (target_key(target),))
        else:
            self._database.execute(_PUT_ACTIVE, active_row(target, active))

    def _put(self, gateway: str, memory: Memory) -> None:
        if memory.type is ResourceType.SECRET:
            return
        key = rows.key_of(gateway, memory.type, memory.name)
        self._put_good(key, memory)
        self._put_refused(key, memory)

    def _put_good(self, key: Key, memory: Memory) -> None:
        """What is new goes in before what is old goes out, so that a frame that stays is never without reference."""
        frames = {frame.digest: frame for frame in (rows.frame_of(key, made) for made in memory.good)}
        origins = map(rows.write_origin, (made.origin for made in memory.good))
        wanted = {Good(digest, at, origin) for at, (digest, origin) in enumerate(zip(frames, origins, strict=True))}
        held = {Good._make(row) for row in self._database.execute(_GOOD, key)}
        if new := wanted - held:
            self._database.executemany(_PUT_FRAME, [frames[row.digest] for row in new])
            self._database.executemany(_PUT_GOOD, [(*key, *row) for row in new])
        gone = {row.digest for row in held} - frames.keys()
        self._database.executemany(_DROP_GOOD, [(*key, digest) for digest in gone])

    def _put_refused(self, key: Key, memory: Memory) -> None:
        wanted = rows.refused_of(memory.refused)
        if wanted != self._database.execute(_REFUSED, key).fetchall():
            self._database.execute(_DROP_REFUSED, key)
            self._database.executemany(_PUT_REFUSED, [(*key, *row) for row in wanted])


def _say_none(path: Path, cause: str) -> None:
    logger.error("no store of last good versions", path=str(path), cause=cause)


def _read_or_begin(path: Path) -> tuple[sqlite3.Connection, Content]:
    """The database and what it holds.

    Raises:
        sqlite3.Error, OSError, Unusable: the machine cannot serve it.
    """
    try:
        return _read_file(path)
    except Unusable as error:
        aside = move_aside(path)
        logger.warning("last good versions begun anew", path=str(path), cause=str(error), aside=str(aside))
        return connect(path), Content({}, {}, {})


def _read_file(path: Path) -> tuple[sqlite3.Connection, Content]:
    database = None
    try:
        database = connect(path)
        return database, read(database)
    except BaseException as error:
        if database is not None:
            database.close()
        if is_damage(error):
            raise Unusable(f"it is damaged: {error}") from error
        raise
