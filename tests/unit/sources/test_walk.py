"""Directories that links lead to in many ways, and how each file has one name all the same."""

from __future__ import annotations

from pathlib import Path

from tests.unit.sources.test_directory import policy, watching
from xdserve.sources import Gone
from xdserve.sources.tree import Tree


def listed(root: Path) -> set[str]:
    return Tree(root).everything().listed


def test_links_that_fan_out_are_walked_once(tmp_path: Path):
    for number in range(60):
        (tmp_path / f"d{number}").mkdir()
        for link in "ab" if number else "":
            (tmp_path / f"d{number - 1}" / link).symlink_to(tmp_path / f"d{number}")
    (tmp_path / "d59" / "x.yaml").touch()
    assert listed(tmp_path) == {"d59/x.yaml"}


def test_a_directory_has_the_name_that_is_no_link_else_the_first(tmp_path: Path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "real").mkdir(parents=True)
    outside.mkdir()
    for directory in (root / "real", outside):
        (directory / "x.yaml").touch()
    (root / "a").symlink_to(root / "real")
    (root / "c").symlink_to(outside)
    (root / "b").symlink_to(outside)
    assert listed(root) == {"real/x.yaml", "b/x.yaml"}


def test_depth_has_an_end_that_is_told(tmp_path: Path):
    deep = tmp_path.joinpath(*"d" * 70)
    deep.mkdir(parents=True)
    (deep / "x.yaml").touch()
    (tmp_path / "x.yaml").touch()
    [(path, why), (file, nothing)] = Tree(tmp_path).found().items()
    assert (path, why) == ("/".join("d" * 65), "cannot be listed: found more than 64 directories one in the other")
    assert (file, nothing) == ("x.yaml", None)


async def test_a_directory_with_two_links_is_live_by_one_name_and_then_the_other(tmp_path: Path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    for directory in (root, outside):
        directory.mkdir()
    (outside / "x.yaml").write_text(policy("x", 1))
    (root / "b").symlink_to(outside)
    async with watching(root) as watched:
        (root / "a").symlink_to(outside)
        await watched.until(lambda: _file(watched) == "a/x.yaml" and not watched.source.errors())
        for weight, name in ((2, "a"), (3, "b")):
            watched.write(f"{name}/x.yaml", policy("x", weight))
            await watched.until_weights(x=weight)
        (root / "a").unlink()
        await watched.until(lambda: _file(watched) == "b/x.yaml")
        assert watched.source.errors() == []
        watched.write("b/x.yaml", policy("x", 4))
        await watched.until_weights(x=4)
        assert not any(isinstance(change, Gone) for change in watched.feed.changes)


def _file(watched) -> str:
    [ref] = watched.feed.objects
    return watched.source.source(ref).file
