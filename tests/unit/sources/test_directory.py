"""A real directory, watched for real: what a user does to files, and what the feed is told."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import watchfiles
from structlog.testing import capture_logs

from tests.support.wait import wait_until
from translator.objects import Object, Ref
from xdserve.sources import Broken, Change, Gone, Put, SourceError
from xdserve.sources.directory import DirectorySource, SourceUnavailable

POLICY = """\
apiVersion: xdserve.io/v1alpha1
kind: TrafficPolicy
metadata: {{name: {name}}}
spec:
  targetRef: {{kind: Service, name: {name}}}
  split:
  - {{backend: a, weight: {weight}}}
"""


def policy(name: str = "iris", weight: object = 1) -> str:
    return POLICY.format(name=name, weight=weight)


class Recorder:
    """A feed that keeps what is good, as the store of objects does, and every change in order."""

    def __init__(self) -> None:
        self.objects: dict[Ref, Object] = {}
        self.changes: list[Change] = []
        self.calls = 0

    def apply(self, changes: Sequence[Change]) -> None:
        self.calls += 1
        for change in changes:
            self.changes.append(change)
            if isinstance(change, Put):
                self.objects[change.object.ref] = change.object
            elif isinstance(change, Gone):
                self.objects.pop(change.ref, None)

    def weights(self) -> dict[str, int]:
        return {ref.name: each.spec.split[0].weight for ref, each in self.objects.items()}


class Watched:
    """A directory that is watched: its feed, and each thing that was told to be wrong."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.feed = Recorder()
        self.known: list[SourceError] = []
        self.by_file: dict[str, tuple[SourceError, ...]] = {}  # put together from what is told to be renewed
        self.told: list[SourceError] = []  # each error once, when it is new
        self.source = DirectorySource(root, self)

    def apply(self, changes: Sequence[Change]) -> None:
        self.feed.apply(changes)
        now = self.source.errors()
        self.by_file.update(self.source.renewed())
        assert sorted(error for errors in self.by_file.values() for error in errors) == sorted(now)
        self.told += [error for error in now if error not in self.known]
        self.known = now

    async def until(self, condition: Callable[[], bool]) -> None:
        await wait_until(condition, seconds=20)

    async def until_weights(self, **weights: int) -> None:
        await self.until(lambda: self.feed.weights() == weights)

    def write(self, name: str, text: str) -> None:
        """As programs that care replace a file: at once."""
        part = self.root / f".{Path(name).name}.part"
        part.write_text(text)
        part.rename(self.root / name)


@contextlib.asynccontextmanager
async def watching(root: Path):
    watched = Watched(root)
    task = asyncio.create_task(watched.source.run())
    try:
        async with asyncio.timeout(20):
            waiter = asyncio.create_task(watched.source.synced.wait())
            await asyncio.wait([waiter, task], return_when=asyncio.FIRST_COMPLETED)
        yield watched
        assert not task.done()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


GRAPH = "apiVersion: serving.kserve.io/v1alpha1\nkind: InferenceGraph\nmetadata: {{name: {name}}}\n"


async def test_a_kind_that_is_not_read_is_logged_once_and_is_no_error(tmp_path: Path):
    (tmp_path / "a.yaml").write_text("---\n".join(GRAPH.format(name=name) for name in "xyz"))
    (tmp_path / "b.yaml").write_text(GRAPH.format(name="w"))
    with capture_logs() as logs:
        async with watching(tmp_path) as watched:
            watched.write("c.yaml", GRAPH.format(name="v") + "---\n" + policy("last"))
            await watched.until_weights(last=1)
    [line] = [line for line in logs if line["event"] == "not read"]
    assert (line["log_level"], line["file"], line["document"]) == ("info", "a.yaml", 1)
    assert "InferenceGraph" in line["message"]
    assert watched.told == []


async def test_nothing_is_waited_for_when_all_is_read(tmp_path: Path):
    async with watching(tmp_path) as watched:
        assert not watched.source.awaited()


async def test_all_that_is_there_is_fed_at_once(tmp_path: Path):
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / "a.yaml").write_text(policy("a"))
    (tmp_path / "b" / "b.yml").write_text(policy("b"))
    (tmp_path / "b" / "c" / "c.json").write_text('{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "c"}}')
    (tmp_path / ".hidden.yaml").write_text(policy("hidden"))
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.yaml").write_text(policy("hidden"))
    (tmp_path / "notes.txt").write_text("not: read")
    async with watching(tmp_path) as watched:
        assert watched.feed.calls == 1
        assert sorted(ref.name for ref in watched.feed.objects) == ["a", "b", "c"]
        assert watched.source.source(Ref("xdserve.io", "TrafficPolicy", "default", "b")) == ("b/b.yml", 1)


async def test_an_empty_directory_is_known_too(tmp_path: Path):
    async with watching(tmp_path) as watched:
        assert watched.feed.calls == 1


async def test_a_file_replaced_at_once_is_live(tmp_path: Path):
    (tmp_path / "a.yaml").write_text(policy("a", 1))
    async with watching(tmp_path) as watched:
        for weight in range(2, 12):
            watched.write("a.yaml", policy("a", weight))
            await watched.until_weights(a=weight)
        assert not any(isinstance(change, Gone | Broken) for change in watched.feed.changes)
        assert watched.told == []


async def test_a_file_written_in_place_is_never_seen_half(tmp_path: Path):
    names = [f"n{index}" for index in range(300)]
    text = "---\n".join(policy(name, 1) for name in names)
    (tmp_path / "a.yaml").write_text(text)
    async with watching(tmp_path) as watched:
        with (tmp_path / "a.yaml").open("w") as file:
            for line in text.replace("weight: 1", "weight: 2").splitlines(keepends=True):
                file.write(line)
                if line == "---\n":
                    file.flush()
                    await asyncio.sleep(0)
        await watched.until(lambda: set(watched.feed.weights().values()) == {2})
        assert len(watched.feed.weights()) == len(names)
        assert not any(isinstance(change, Gone | Broken) for change in watched.feed.changes)


async def test_a_broken_text_keeps_what_was_good_and_is_told(tmp_path: Path):
    (tmp_path / "a.yaml").write_text(policy("a", 1))
    async with watching(tmp_path) as watched:
        watched.write("a.yaml", policy("a", -1))
        await watched.until(lambda: bool(watched.told))
        assert watched.feed.weights() == {"a": 1}
        [error] = watched.source.errors()
        assert str(error) == (
            "a.yaml document 1: TrafficPolicy default/a: spec.split[0].weight: found -1, allowed 0..1000000"
        )
        watched.write("a.yaml", policy("a", 3))
        await watched.until_weights(a=3)
        assert watched.source.errors() == []


async def test_a_file_moved_away_and_written_anew_is_no_deletion(tmp_path: Path):
    (tmp_path / "a.yaml").write_text(policy("a", 1))
    async with watching(tmp_path) as watched:
        (tmp_path / "a.yaml").rename(tmp_path / "a.yaml~")
        (tmp_path / "a.yaml").write_text(policy("a", 2))
        await watched.until_weights(a=2)
        assert not any(isinstance(change, Gone) for change in watched.feed.changes)


async def test_deleting_a_file_takes_its_objects(tmp_path: Path):
    (tmp_path / "a.yaml").write_text(policy("a"))
    (tmp_path / "b.yaml").write_text(policy("b"))
    async with watching(tmp_path) as watched:
        (tmp_path / "a.yaml").unlink()
        await watched.until_weights(b=1)


async def test_an_object_taken_out_of_its_file_is_gone(tmp_path: Path):
    (tmp_path / "a.yaml").write_text(policy("a") + "---\n" + policy("b"))
    async with watching(tmp_path) as watched:
        watched.write("a.yaml", policy("b"))
        await watched.until_weights(b=1)


async def test_an_empty_file_holds_what_it_held_until_it_is_deleted(tmp_path: Path):
    (tmp_path / "a.yaml").write_text(policy("a"))
    async with watching(tmp_path) as watched:
        (tmp_path / "a.yaml").write_text("")
        await watched.until(lambda: bool(watched.told))
        assert watched.feed.weights() == {"a": 1}
        (tmp_path / "a.yaml").unlink()
        await watched.until_weights()
        assert watched.source.errors() == []


async def test_directories_moved_in_and_out(tmp_path: Path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    (outside / "deep").mkdir(parents=True)
    (outside / "deep" / "a.yaml").write_text(policy("a"))
    async with watching(root) as watched:
        outside.rename(root / "in")
        await watched.until_weights(a=1)
        watched.write("in/deep/a.yaml", policy("a", 2))
        await watched.until_weights(a=2)
        (root / "in").rename(outside)
        await watched.until_weights()


async def test_a_directory_made_and_filled_at_once(tmp_path: Path):
    async with watching(tmp_path) as watched:
        (tmp_path / "x" / "y").mkdir(parents=True)
        (tmp_path / "x" / "y" / "a.yaml").write_text(policy("a"))
        await watched.until_weights(a=1)
        (tmp_path / "x" / "y" / "a.yaml").write_text(policy("a", 2))
        await watched.until_weights(a=2)


async def test_a_mounted_config_map(tmp_path: Path):
    """The kubelet writes a new directory, swaps the link ..data to it and removes the old one."""

    def publish(generation: str, **files: str) -> None:
        old = tmp_path / (tmp_path / "..data").readlink() if (tmp_path / "..data").is_symlink() else None
        (tmp_path / generation).mkdir()
        for name, text in files.items():
            (tmp_path / generation / f"{name}.yaml").write_text(text)
        (tmp_path / "..data_tmp").symlink_to(generation)
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")
        for name in files:
            link = tmp_path / f"{name}.yaml"
            if not link.is_symlink():
                link.symlink_to(f"..data/{name}.yaml")
        for link in tmp_path.glob("*.yaml"):
            if link.stem not in files:
                link.unlink()
        if old:
            for each in old.iterdir():
                each.unlink()
            old.rmdir()

    publish("..2026_1", a=policy("a", 1), b=policy("b", 1))
    async with watching(tmp_path) as watched:
        assert watched.feed.weights() == {"a": 1, "b": 1}
        publish("..2026_2", a=policy("a", 2), b=policy("b", 1))
        await watched.until_weights(a=2, b=1)
        publish("..2026_3", a=policy("a", 3), c=policy("c", 1))
        await watched.until_weights(a=3, c=1)
        gone = [change.ref.name for change in watched.feed.changes if isinstance(change, Gone)]
        assert gone == ["b"]


async def test_links_in_a_circle_end(tmp_path: Path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "up").symlink_to(tmp_path)
    (tmp_path / "x" / "nowhere.yaml").symlink_to(tmp_path / "missing")
    (tmp_path / "a.yaml").write_text(policy("a"))
    async with watching(tmp_path) as watched:
        assert watched.feed.weights() == {"a": 1}
        assert watched.source.errors() == []


async def test_the_directory_goes_and_comes_back(tmp_path: Path):
    root, away = tmp_path / "root", tmp_path / "away"
    root.mkdir()
    (root / "a.yaml").write_text(policy("a"))
    async with watching(root) as watched:
        root.rename(away)
        await watched.until(lambda: bool(watched.told))
        assert watched.feed.weights() == {"a": 1}
        [error] = watched.source.errors()
        assert str(root) in error.message
        assert error.reason == "Unreadable"
        away.rename(root)
        await watched.until(lambda: watched.source.errors() == [])
        watched.write("a.yaml", policy("a", 2))
        await watched.until_weights(a=2)


async def test_another_directory_in_its_place_is_read(tmp_path: Path):
    one, two, link = tmp_path / "one", tmp_path / "two", tmp_path / "current"
    for each, weight in ((one, 1), (two, 2)):
        each.mkdir()
        (each / "a.yaml").write_text(policy("a", weight))
    link.symlink_to(one)
    async with watching(link) as watched:
        assert watched.feed.weights() == {"a": 1}
        (tmp_path / "next").symlink_to(two)
        (tmp_path / "next").rename(link)
        await watched.until_weights(a=2)
        (two / "a.yaml").write_text(policy("a", 3))
        await watched.until_weights(a=3)


@pytest.mark.parametrize("name", ["missing", "file"])
async def test_no_directory_at_the_start_is_one_clear_line(tmp_path: Path, name: str):
    (tmp_path / "file").write_text("")
    source = DirectorySource(tmp_path / name, Recorder())
    with pytest.raises(SourceUnavailable) as raised:
        await source.run()
    assert str(tmp_path / name) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not source.synced.is_set()
    assert source.awaited() == f"the first look at the files of {tmp_path / name}"


async def test_files_that_cannot_be_read_say_why(tmp_path: Path):
    (tmp_path / "dir.yaml").mkdir()
    (tmp_path / "big.yaml").touch()
    os.truncate(tmp_path / "big.yaml", 17 * 1024 * 1024)
    (tmp_path / b"\xff\n.yaml".decode(errors="surrogateescape")).write_text("")
    os.mkfifo(tmp_path / "pipe.yaml")
    async with watching(tmp_path) as watched:
        assert [str(error) for error in watched.source.errors()] == [
            "\\\\udcff\\n.yaml: the file is empty; what it held before stays until it is filled or deleted",
            "big.yaml: found 17825792 bytes, allowed 16777216",
        ]


async def test_an_error_is_told_once(tmp_path: Path):
    async with watching(tmp_path) as watched:
        watched.write("a.yaml", "kind: [")
        await watched.until(lambda: len(watched.told) == 1)
        watched.write("b.yaml", policy("b"))
        await watched.until_weights(b=1)
        watched.write("a.yaml", "kind: [ ")
        watched.write("b.yaml", policy("b", 2))
        await watched.until_weights(b=2)
        assert len(watched.told) == 1


async def test_a_directory_that_cannot_be_listed_is_told_and_keeps_what_it_held(tmp_path: Path, monkeypatch):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.yaml").write_text(policy("a"))
    closed = [False]
    scandir = os.scandir

    def guarded(path):
        if closed[0] and Path(path) == tmp_path / "sub":
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    async with watching(tmp_path) as watched:
        closed[0] = True
        (tmp_path / "sub").chmod(0o700)
        await watched.until(lambda: bool(watched.told))
        [error] = watched.source.errors()
        assert (str(error), error.reason) == ("sub: cannot be listed: Permission denied", "Unreadable")
        assert watched.feed.weights() == {"a": 1}
        closed[0] = False
        (tmp_path / "sub").chmod(0o755)
        await watched.until(lambda: watched.source.errors() == [])
        watched.write("sub/a.yaml", policy("a", 2))
        await watched.until_weights(a=2)
        closed[0] = True
        (tmp_path / "sub" / "b.yaml").mkdir()
        (tmp_path / "sub").chmod(0o700)
        await watched.until(lambda: bool(watched.source.errors()))
        (tmp_path / "sub").rename(tmp_path.parent / "away")
        await watched.until(lambda: watched.source.errors() == [] and watched.feed.weights() == {})


async def test_a_file_name_that_is_no_text_does_not_end_the_watch(tmp_path: Path):
    (tmp_path / "a.yaml").write_text(policy("a"))
    async with watching(tmp_path) as watched:
        for weight in range(2, 6):
            odd = tmp_path / os.fsdecode(b"\xff%d.yaml" % weight)
            odd.write_text(policy("odd", weight))
            await watched.until(lambda weight=weight: watched.feed.weights().get("odd") == weight)
            watched.write("a.yaml", policy("a", weight))
            await watched.until_weights(a=weight, odd=weight)
            odd.unlink()
            await watched.until_weights(a=weight)
        assert watched.told == []


async def test_a_watch_that_ends_says_its_cause(tmp_path: Path, monkeypatch):
    async def broken(*_: object, **__: object):
        raise ExceptionGroup("unhandled errors in a TaskGroup", [OSError("no space left")])
        yield

    monkeypatch.setattr(watchfiles, "awatch", broken)
    async with watching(tmp_path) as watched:
        await watched.until(lambda: bool(watched.told))
        assert watched.told[0].message == f"{tmp_path} cannot be watched: no space left"


@pytest.mark.parametrize(("old", "new"), [("a.yaml", "b.yaml"), ("b.yaml", "a.yaml")])
async def test_a_file_that_is_moved_is_no_conflict(tmp_path: Path, old: str, new: str):
    (tmp_path / old).write_text(policy("x"))
    async with watching(tmp_path) as watched:
        (tmp_path / old).rename(tmp_path / new)
        [ref] = watched.feed.objects
        await watched.until(lambda: watched.source.source(ref).file == new)
        watched.write(new, policy("x", 2))
        await watched.until_weights(x=2)
        assert watched.told == []
        assert not any(isinstance(change, Gone) for change in watched.feed.changes)


async def test_an_object_moved_from_file_to_file_is_no_conflict(tmp_path: Path):
    (tmp_path / "a.yaml").write_text(policy("x") + "---\n" + policy("y"))
    (tmp_path / "b.yaml").write_text(policy("z"))
    async with watching(tmp_path) as watched:
        watched.write("a.yaml", policy("y"))
        watched.write("b.yaml", policy("x", 2) + "---\n" + policy("z"))
        await watched.until_weights(x=2, y=1, z=1)
        assert watched.told == []
        assert not any(isinstance(change, Gone) for change in watched.feed.changes)


async def test_a_conflict_that_stays_is_told(tmp_path: Path):
    (tmp_path / "a.yaml").write_text(policy("x"))
    async with watching(tmp_path) as watched:
        (tmp_path / "a.yaml").write_text("kind: [")
        watched.write("b.yaml", policy("x", 2))
        await watched.until(lambda: len(watched.source.errors()) == 2)
        assert sorted(error.reason for error in watched.source.errors()) == ["Conflicted", "Unreadable"]
