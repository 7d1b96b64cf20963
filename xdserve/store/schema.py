"""The tables, and how a file is told to be ours and whole."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from xdserve.store.files import make_private

APPLICATION_ID = 0x78647376  # "xdsv"
VERSION = 3

# Each is the one statement that makes a file of the version before it one of this version.
_ADDED = {
    3: """CREATE TABLE active (
  target TEXT PRIMARY KEY, entry TEXT NOT NULL, predictor TEXT NOT NULL, explainer INTEGER NOT NULL,
  digest BLOB NOT NULL
) WITHOUT ROWID""",
}

# Names and words are kept as UTF-8 in BLOBs: SQLite's TEXT takes neither NUL nor lone surrogates without harm.
# A frame is kept once, whoever refers to it, and goes with the last reference.
_STATEMENTS = (
    """CREATE TABLE frames (
  digest BLOB PRIMARY KEY, version BLOB NOT NULL, frame BLOB NOT NULL, uses TEXT NOT NULL, vacant INTEGER NOT NULL,
  slow INTEGER NOT NULL
)""",
    """CREATE TABLE good (
  gateway BLOB NOT NULL, type TEXT NOT NULL, name BLOB NOT NULL, digest BLOB NOT NULL, position INTEGER NOT NULL,
  origin TEXT,
  PRIMARY KEY (gateway, type, name, digest)
) WITHOUT ROWID""",
    "CREATE INDEX good_by_digest ON good (digest)",
    """CREATE TABLE refused (
  gateway BLOB NOT NULL, type TEXT NOT NULL, name BLOB NOT NULL, position INTEGER NOT NULL, version BLOB NOT NULL,
  code INTEGER NOT NULL, message BLOB NOT NULL, node BLOB NOT NULL, cause TEXT NOT NULL,
  PRIMARY KEY (gateway, type, name, position)
) WITHOUT ROWID""",
    """CREATE TABLE accepted (
  target TEXT PRIMARY KEY, file BLOB NOT NULL, document TEXT NOT NULL, digest BLOB NOT NULL
) WITHOUT ROWID""",
    """CREATE TRIGGER unreferenced AFTER DELETE ON good
WHEN NOT EXISTS (SELECT 1 FROM good WHERE digest = OLD.digest)
BEGIN DELETE FROM frames WHERE digest = OLD.digest; END""",
    *_ADDED.values(),
)

# What says that the machine, not the file, is at fault; the file is left alone then.
_ENVIRONMENT = frozenset(
    {
        sqlite3.SQLITE_AUTH,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOLFS,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    }
)


class Unusable(Exception):
    """The file is damaged, of another schema, or not ours; the message says which."""


def connect(path: Path) -> sqlite3.Connection:
    """Open the file, make its tables if it is new, and see that it is whole.

    Raises:
        Unusable: it is to be moved aside.
        sqlite3.Error, UnicodeDecodeError: damage (see is_damage), or the machine cannot serve it.
        OSError: it cannot be opened for writing.
    """
    make_private(path)
    with ExitStack() as stack:
        database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        stack.callback(database.close)
        # With one owner there is no index in shared memory, and no reader can hold up a checkpoint.
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        if _tables(database):
            _check(database)
        else:
            _make(database)
        database.execute("PRAGMA journal_mode = WAL")
        # Whole after a power cut, if not with the last second: what is lost is learnt again.
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute("PRAGMA journal_size_limit = 16777216")
        stack.pop_all()
    return database


def is_damage(error: BaseException) -> bool:
    """Whether the error is of the file's content, not of the machine (disk full, read-only, no permission)."""
    if isinstance(error, UnicodeDecodeError):  # the module cannot decode SQLite's words about a bad name
        return True
    if not isinstance(error, sqlite3.Error):
        return False
    code = getattr(error, "sqlite_errorcode", None)
    return code is None or code & 0xFF not in _ENVIRONMENT


def _tables(database: sqlite3.Connection) -> set[str]:
    return {sql for (sql,) in database.execute("SELECT sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'")}


def _make(database: sqlite3.Connection) -> None:
    """In one transaction, so that a process that is killed leaves all or nothing."""
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("BEGIN")
    for statement in _STATEMENTS:
        database.execute(statement)
    database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    database.execute(f"PRAGMA user_version = {VERSION}")
    database.execute("COMMIT")


def _check(database: sqlite3.Connection) -> None:
    (application,) = database.execute("PRAGMA application_id").fetchone()
    if application != APPLICATION_ID:
        raise Unusable("it is a database of another program")
    (version,) = database.execute("PRAGMA user_version").fetchone()
    newer = {number: statement for number, statement in _ADDED.items() if number > version}
    if version + len(newer) != VERSION:
        raise Unusable(f"its schema is {version}, this program's is {VERSION}")
    if _tables(database) != set(_STATEMENTS).difference(newer.values()):
        raise Unusable("its tables are not those of its schema")
    (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise Unusable("it is damaged")
    if newer:
        _migrate(database, newer.values())


def _migrate(database: sqlite3.Connection, statements: Iterable[str]) -> None:
    """All or nothing, too."""
    database.execute("BEGIN")
    for statement in statements:
        database.execute(statement)
    database.execute(f"PRAGMA user_version = {VERSION}")
    database.execute("COMMIT")
