"""Which components are active comes back from the store after a restart; a file of the version before is taken over."""

from __future__ import annotations

import sqlite3

import pytest
from structlog.testing import capture_logs

from tests.support.documents import policy
from tests.support.memories import files, good, memory, table, whole
from translator.objects import Ref, parse
from translator.planners.components import ActiveComponents
from xdserve.store import Accepted, Store
from xdserve.store.policies import accepted_row
from xdserve.store.schema import APPLICATION_ID

IRIS = Ref("serving.kserve.io", "InferenceService", "models", "iris")
WINE = IRIS._replace(name="wine")
PLAIN = ActiveComponents("predictor", "iris-predictor")
ALL = ActiveComponents("transformer", "iris-v2-predictor", explainer=True)


def test_they_come_back_once(reopen):
    said = {IRIS: ALL, WINE: PLAIN}
    assert reopen().save([], active=said.items()) == 2
    store = reopen()
    assert store.active() == said
    assert store.active() == {}


def test_what_is_known_already_is_not_written(reopen, path):
    said = [(IRIS, ALL), (WINE, None)]
    reopen().save([], active=said)
    store = reopen()
    before = files(path)
    assert store.save([], active=said) == 0
    assert files(path) == before


def test_others_replace_and_none_deletes(reopen):
    store = reopen()
    for said in PLAIN, ALL:
        assert store.save([], active=[(IRIS, said)]) == 1
        store = reopen()
        assert store.active() == {IRIS: said}
    assert store.save([], active=[(IRIS, None)]) == 1
    assert reopen().active() == {}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE active SET entry = 'predictor'",
        "UPDATE active SET predictor = 'iris-predictor'",
        "UPDATE active SET explainer = 0",
        "UPDATE active SET target = replace(target, 'iris', 'rose')",
        "UPDATE active SET target = x'ff'",
        "UPDATE active SET digest = 7",
    ],
)
def test_a_row_that_was_altered_is_not_believed(reopen, path, statement):
    store = reopen()
    store.save([], active=[(IRIS, ALL)])
    store.close()
    database = sqlite3.connect(path)
    database.execute(statement)
    database.commit()
    database.close()
    with capture_logs() as lines:
        assert reopen().active() == {}
    assert [(line["event"], line["cause"]) for line in lines] == [("last good versions begun anew", "it is damaged")]


# -- Files of version 2 ----------------------------------------------------------------------------------------------

VERSION_2 = (
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
)
ACCEPTED = Accepted(parse(policy()), "policy.yaml")
MEMORIES = {"models/iris": [memory(good())]}


@pytest.fixture
def old(path, tmp_path):
    """A file as an xdserve of version 2 left it: a resource, and a policy in force."""
    store = Store.open(tmp_path / "new")
    store.save(MEMORIES.items())
    store.close()
    path.parent.mkdir()
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    for statement in VERSION_2:
        database.execute(statement)
    for name in "frames", "good":
        rows = table(tmp_path / "new", name)
        database.executemany(f"INSERT INTO {name} VALUES ({', '.join('?' * len(rows[0]))})", rows)
    database.execute("INSERT INTO accepted VALUES (?, ?, ?, ?)", accepted_row(IRIS, ACCEPTED))
    database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    database.execute("PRAGMA user_version = 2")
    yield database
    database.close()


def test_a_file_of_version_2_is_taken_over(old, reopen, path):
    old.close()
    with capture_logs() as lines:
        store = reopen()
    assert lines == []
    assert whole(store.load()) == whole(MEMORIES)
    assert (store.policies(), store.active()) == ({IRIS: ACCEPTED}, {})
    store.save([], active=[(IRIS, ALL)])
    again = reopen()
    assert (list(again.load()), again.policies(), again.active()) == (["models/iris"], {IRIS: ACCEPTED}, {IRIS: ALL})
    assert not path.with_name(path.name + ".aside").exists()


def test_one_of_version_2_that_is_not_whole_is_moved_aside(old, reopen, path):
    old.execute("DROP INDEX good_by_digest")
    old.close()
    with capture_logs() as lines:
        assert reopen().load() == {}
    assert [line["cause"] for line in lines] == ["its tables are not those of its schema"]
    assert path.with_name(path.name + ".aside").exists()
