"""Whatever happens to the file and its place, the server starts, and never believes what was altered."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.support.memories import child, good, memory, refusal, table
from xds.wire.resource import resource
from xdserve.store import Store
from xdserve.store.schema import VERSION

# -- Who may read it


def test_only_the_owner_may_read_it(path):
    before = os.umask(0)
    try:
        store = Store.open(path)
        store.save([("g", [memory(good())])])
    finally:
        os.umask(before)
    modes = {one.name: one.stat().st_mode & 0o777 for one in path.parent.iterdir()}
    assert len(modes) >= 3
    assert set(modes.values()) == {0o600}
    assert path.parent.stat().st_mode & 0o777 == 0o700
    store.close()


def test_a_file_that_others_could_read_becomes_private(reopen, path):
    reopen().close()
    path.chmod(0o644)
    reopen()
    assert path.stat().st_mode & 0o777 == 0o600


# -- Files that are not as they should be ----------------------------------------------------------------------------


def a_good_file(path, gateways=40):
    store = Store.open(path)
    store.save([(f"models/{n}", [memory(good(body=b"%d" % n * 300), refused=(refusal(),))]) for n in range(gateways)])
    store.close()
    return path.read_bytes()


def begins_anew(path):
    """The words of the one log line; the store works, and the old file is beside it."""
    before = path.read_bytes()
    with capture_logs() as lines:
        store = Store.open(path)
    assert store.load() == {}
    store.save([("g", [memory(good())])])
    store.close()
    (line,) = lines
    assert line["event"] == "last good versions begun anew"
    assert path.with_name(path.name + ".aside").read_bytes()[:16] == before[:16]
    with capture_logs() as lines:
        store = Store.open(path)
    assert list(store.load()) == ["g"]
    store.close()
    assert not lines
    return line["cause"]


@pytest.mark.parametrize(
    ("statement", "cause"),
    [
        (f"PRAGMA user_version = {VERSION + 1}", f"its schema is {VERSION + 1}, this program's is {VERSION}"),
        ("PRAGMA user_version = 0", f"its schema is 0, this program's is {VERSION}"),
        ("PRAGMA application_id = 7", "it is a database of another program"),
        ("DROP TABLE refused", "its tables are not those of its schema"),
        ("DROP TRIGGER unreferenced", "its tables are not those of its schema"),
        ("UPDATE frames SET frame = x'00'", "it is damaged"),
        ("UPDATE frames SET frame = 7", "it is damaged"),
        ("UPDATE frames SET uses = '['", "it is damaged"),
        ("UPDATE frames SET slow = 'often'", "it is damaged"),
        ("UPDATE good SET name = CAST('other' AS BLOB)", "it is damaged"),
        ("UPDATE good SET type = 'sds'", "it is damaged"),
        ("UPDATE good SET gateway = x'ff'", "it is damaged"),
        ("UPDATE good SET origin = '[1, 2, 3, 4, 5]'", "it is damaged"),
        ("UPDATE good SET origin = '{}'", "it is damaged"),
        ("UPDATE refused SET cause = 'whim'", "it is damaged"),
        ("UPDATE refused SET code = 'x'", "it is damaged"),
        ("UPDATE refused SET node = 'text'", "it is damaged"),
    ],
)
def test_a_file_of_another_schema_or_content_is_moved_aside(path, statement, cause):
    a_good_file(path, 1)
    database = sqlite3.connect(path)
    database.execute(statement)
    database.commit()
    database.close()
    assert begins_anew(path) == cause


def test_a_database_of_another_program_is_moved_aside_whole(path):
    path.parent.mkdir()
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE theirs (x)")
    database.commit()
    database.close()
    assert begins_anew(path) == "it is a database of another program"
    assert table(path.with_name(path.name + ".aside"), "theirs") == []


def test_an_empty_file_is_a_new_one(path):
    path.parent.mkdir()
    path.touch()
    with capture_logs() as lines:
        store = Store.open(path)
    store.close()
    assert not lines


def test_what_is_no_database_is_moved_aside(path):
    path.parent.mkdir()
    path.write_bytes(os.urandom(5000))
    assert begins_anew(path) == "it is damaged: file is not a database"


@pytest.mark.parametrize("part", [1, 2, 3, 9])
def test_a_truncated_file_is_moved_aside(path, part):
    whole_file = a_good_file(path)
    path.write_bytes(whole_file[: len(whole_file) * part // 10])
    assert "damaged" in begins_anew(path)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_bytes_in_the_file_never_keep_it_from_opening_nor_change_a_frame(tmp_path, data):
    directory = Path(tempfile.mkdtemp(dir=tmp_path))
    path = directory / "store"
    a_good_file(path)
    store = Store.open(path)
    store.save([("models/0", [memory(good(body=b"two"))])], forget=["models/1"])
    left = {name: (directory / name).read_bytes() for name in ("store", "store-wal")}
    store.close()
    # As a killed process leaves it: the last save stands in the log alone.
    for name, content in left.items():
        (directory / name).write_bytes(content)
    path = directory / data.draw(st.sampled_from(sorted(left)))
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    junk = data.draw(st.binary(min_size=1, max_size=200))
    content[at : at + len(junk)] = junk
    path.write_bytes(content)
    store = Store.open(directory / "store")
    assert store is not None
    for found in store.load().values():
        for one in found:
            assert all(made == resource(made.type, made.name, made.body) for made in one.good)
    store.save([("g", [memory(good())])])
    store.close()
    shutil.rmtree(directory)


def test_only_the_latest_bad_file_is_kept(path):
    for _ in range(3):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"no database" * 100)
        Store.open(path).close()
    assert sorted(one.name.removeprefix(path.name) for one in path.parent.iterdir()) == ["", ".aside", ".lock"]


# -- Places where there can be no store ------------------------------------------------------------------------------


def opens_not(path):
    with capture_logs() as lines:
        assert Store.open(path) is None
    (line,) = lines
    assert line["event"] == "no store of last good versions"
    return line["cause"]


def test_a_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    assert "Not a directory" in opens_not(tmp_path / "file" / "state" / "store")


def test_a_directory_in_the_place_of_the_file(path):
    path.mkdir(parents=True)
    assert "Is a directory" in opens_not(path)


def test_a_read_only_directory():
    """Nothing binds the superuser, so another user it is, in a place that all may enter."""
    directory = Path(tempfile.mkdtemp())  # not tmp_path: only its owner may enter that
    me = os.geteuid()
    try:
        directory.chmod(0o555)
        if me == 0:
            os.seteuid(65534)
        assert "Permission denied" in opens_not(directory / "store")
    finally:
        if me == 0:
            os.seteuid(me)
        directory.chmod(0o755)
        shutil.rmtree(directory)


def test_one_process_owns_the_file(reopen, path):
    store = reopen()
    code = f"""
        import sys
        from pathlib import Path
        from xdserve.store import Store
        sys.exit(Store.open(Path({str(path)!r})) is not None)
    """
    ended = child(code)
    out = ended.communicate(timeout=30)[0]
    assert ended.returncode == 0
    assert "another process uses it" in out
    assert opens_not(path) == "another process uses it"
    store.save([("g", [memory(good())])])
    assert list(reopen().load()) == ["g"]


def test_a_killed_process_leaves_a_whole_file(path):
    """Each save changes all gateways at once; so after the kill they are alike, and no older than what was told."""
    code = f"""
        from itertools import count
        from pathlib import Path
        from xds.memory import Memory
        from xds.types import ResourceType
        from xds.wire.resource import resource
        from xdserve.store import Store
        store = Store.open(Path({str(path)!r}))
        for n in count():
            made = resource(ResourceType.ROUTE, "r", b"%d " % n * 500)
            kept = Memory(type=ResourceType.ROUTE, name="r", good=(made,), refused=())
            store.save([(str(g), [kept]) for g in range(20)])
            print(made.version, n, flush=True)
    """
    for _ in range(3):
        writer = child(code)
        told = [writer.stdout.readline() for _ in range(30)]
        writer.send_signal(signal.SIGKILL)
        told += writer.communicate(timeout=30)[0].splitlines()
        with capture_logs() as lines:
            store = Store.open(path)
        assert not lines
        memories = store.load()
        store.close()
        bodies = {one.good[0].body for found in memories.values() for one in found}
        assert len(memories) == 20
        (body,) = bodies
        last = int([line for line in told if len(line.split()) == 2][-1].split()[1])
        assert int(body.split()[0]) >= last
        path.unlink()


def test_a_file_that_may_not_grow_stays_whole(path):
    """The kernel refuses the write, as on a full disk."""
    code = f"""
        import resource as limits, sqlite3, sys
        from pathlib import Path
        from xds.memory import Memory
        from xds.types import ResourceType
        from xds.wire.resource import resource
        from xdserve.store import Store
        store = Store.open(Path({str(path)!r}))
        def save(n):
            made = resource(ResourceType.ROUTE, "r", b"%d " % n * 30_000)
            store.save([(str(n), [Memory(type=ResourceType.ROUTE, name="r", good=(made,), refused=())])])
        save(0)
        limits.setrlimit(limits.RLIMIT_FSIZE, (400_000, 400_000))
        for n in range(1, 50):
            try:
                save(n)
            except sqlite3.OperationalError as error:
                print("failed", error.sqlite_errorname)
                break
            print("saved", n)
        store.close()
    """
    ended = child(code)
    told = ended.communicate(timeout=30)[0].splitlines()
    assert ended.returncode == 0
    assert re.fullmatch(r"failed SQLITE_(FULL|IOERR_WRITE)", told[-1])
    with capture_logs() as lines:
        store = Store.open(path)
    assert not lines
    assert set(store.load()) == {str(n) for n in range(len(told))}
    store.close()
