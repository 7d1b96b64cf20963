"""`xdserve diff`: what an edit sends, per gateway and resource."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys

import pytest
import yaml

from tests.support.documents import backend, entrance, isvc, policy, split, to_service
from xdserve import cli

pytestmark = pytest.mark.usefixtures("log_as_found")


class Folders:
    """Two folders, and what the command says of them."""

    def __init__(self, root, capfd):
        self.root, self.capfd = root, capfd
        for name in ("old", "new"):
            (root / name).mkdir()

    def write(self, folder, *documents, file="a.yaml", text=None):
        content = yaml.safe_dump_all(documents) if text is None else text
        (self.root / folder / file).write_text(content)

    def both(self, *documents, file="a.yaml"):
        for folder in ("old", "new"):
            self.write(folder, *documents, file=file)

    def diff(self, *arguments):
        code = cli.main(["diff", str(self.root / "old"), str(self.root / "new"), *arguments])
        out, err = self.capfd.readouterr()
        assert err == ""
        assert "\x1b" not in out
        return code, out

    def data(self):
        code, out = self.diff("-o", "json")
        data = json.loads(out)
        assert code == int(bool(data["gateways"] or data["findings"]["new"] or data["findings"]["mended"]))
        return data


@pytest.fixture
def folders(tmp_path, capfd):
    return Folders(tmp_path, capfd)


STABLE = [isvc(), *backend("iris-predictor", 9000)]
V2 = backend("v2", 9001)


def canary(weight):
    return policy(backends=[to_service("v2", "v2")], split=split(predictor=100 - weight, v2=weight))


def changes(data, gateway="models/iris"):
    return [(each["change"], each["type"], each["name"]) for each in data["gateways"][gateway]["changes"]]


def test_no_difference_is_exit_0(folders):
    folders.both(*STABLE)
    assert folders.diff() == (0, "nothing is sent\n")
    data = folders.data()
    assert (data["gateways"], data["summary"]["sent"]) == ({}, 0)


def test_what_sends_nothing_is_no_difference(folders):
    """Order, comments, files and fields that nobody reads are the author's own business."""
    folders.write("old", *STABLE, canary(10), *V2)
    folders.write("new", canary(10), *V2, file="b.yaml")
    folders.write("new", *reversed(STABLE), text="# moved\n" + yaml.safe_dump_all(STABLE[::-1]))
    assert folders.diff() == (0, "nothing is sent\n")


def test_new_weights_change_the_routes_alone(folders):
    folders.both(*STABLE, *V2)
    folders.write("old", canary(10), file="p.yaml")
    folders.write("new", canary(50), file="p.yaml")
    code, out = folders.diff()
    assert code == 1
    lines = out.splitlines()
    assert lines[:2] == ["gateway models/iris", "  ~ routes models/iris"]
    shares = "{clusters: [{name: models/iris/predictor, weight: %d}, {name: models/iris/v2, weight: %d}]}"
    assert [line.strip() for line in lines if line.strip().startswith(("-  ", "+  "))] == [
        f"-      weighted_clusters: {shares % (90, 10)}",
        f"+      weighted_clusters: {shares % (50, 50)}",
    ]
    assert lines[-1].startswith("1 gateway, 1 resource sent, 0 removed; listeners unchanged; ")


def test_resources_come_in_the_order_of_sending(folders):
    folders.both(*STABLE)
    folders.write("new", canary(10), *V2, file="p.yaml")
    data = folders.data()
    assert changes(data) == [
        ("added", "clusters", "models/iris/v2"),
        ("added", "endpoints", "models/iris/v2"),
        ("changed", "routes", "models/iris"),
    ]
    assert data["summary"] | {"bytes": 0} == {
        "gateways": 1, "sent": 3, "removed": 0, "bytes": 0, "changedListeners": [],
    }  # fmt: skip
    # The bytes are those of the responses: more than the names in them, less than all that the gateway has.
    assert 500 < data["summary"]["bytes"] < 10_000
    folders.write("old", canary(10), *V2, file="p.yaml")
    folders.write("new", file="p.yaml", text="# nothing any more\n")
    assert [change for change, *_ in changes(folders.data())] == ["removed", "removed", "changed"]


def test_an_assignment_follows_its_changed_cluster(folders):
    folders.both(*STABLE)
    folders.write("new", policy(timeouts={"connect": "9s"}), file="p.yaml")
    assert changes(folders.data()) == [
        ("changed", "clusters", "models/iris/predictor"),
        ("sent again", "endpoints", "models/iris/predictor"),
    ]


def test_a_changed_listener_is_said_loudly(folders):
    folders.both(*STABLE)
    folders.write("old", entrance(8080), file="g.yaml")
    folders.write("new", entrance(8081), file="g.yaml")
    code, out = folders.diff()
    assert code == 1
    assert out.splitlines()[-1] == "LISTENERS CHANGE, which cuts running streams: models/iris"
    assert "; LISTENERS CHANGE; " in out
    assert folders.data()["summary"]["changedListeners"] == ["models/iris"]


def test_a_new_gateway_cuts_nothing(folders):
    folders.both(*STABLE)
    folders.write("new", isvc("other"), *backend("other-predictor", 9001), file="b.yaml")
    code, out = folders.diff()
    assert code == 1
    assert out.splitlines()[0] == "gateway models/other (new)"
    assert "listeners unchanged" in out


def test_a_gateway_without_target_answers_404(folders):
    folders.both(*STABLE)
    folders.write("old", isvc("other"), *backend("other-predictor", 9001), file="b.yaml")
    code, out = folders.diff()
    assert code == 1
    assert out.splitlines()[0] == "gateway models/other (its target is gone: it answers 404)"
    assert folders.data()["gateways"]["models/other"]["hasTarget"] is False


def test_a_bad_edit_sends_nothing_and_is_a_new_finding(folders):
    """The last good version goes on being served, as by a running server."""
    folders.both(*STABLE, *V2)
    folders.write("old", canary(10), file="p.yaml")
    folders.write("new", canary(-1), file="p.yaml")
    code, out = folders.diff()
    assert code == 1
    assert out.splitlines()[0] == "new findings:"
    assert "  p.yaml document 1: TrafficPolicy models/iris: spec.split[1].weight: found -1, allowed 0..1000000" in out
    assert out.splitlines()[-1] == "nothing is sent"
    folders.write("new", file="p.yaml", text="a: [\n")
    data = folders.data()
    assert data["gateways"] == {}
    assert [found["reason"] for found in data["findings"]["new"]] == ["Unreadable"]


def test_a_mended_edit_is_said(folders):
    folders.both(*STABLE, *V2)
    folders.write("old", canary(-1), file="p.yaml")
    folders.write("new", canary(10), file="p.yaml")
    data = folders.data()
    assert data["findings"]["new"] == []
    assert data["findings"]["mended"]
    assert "mended findings:" in folders.diff()[1]


def test_a_finding_that_moves_is_neither_new_nor_mended(folders):
    folders.write("old", *STABLE, policy(split=split(nobody=1)))
    folders.write("new", *STABLE[1:], policy(split=split(nobody=1)), file="b.yaml")
    folders.write("new", STABLE[0])
    assert folders.diff() == (0, "nothing is sent\n")


def test_two_files_are_two_states_of_one(tmp_path, capfd):
    for name, weight in (("before", 10), ("after", 20)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump_all([*STABLE, *V2, canary(weight)]))
    (tmp_path / "half.yaml").write_text("a: [\n")
    paths = [str(tmp_path / f"{name}.yaml") for name in ("before", "after", "half")]
    assert cli.main(["diff", *paths[:2]]) == 1
    assert "1 gateway, 1 resource sent, 0 removed" in capfd.readouterr().out
    assert cli.main(["diff", paths[0], paths[2]]) == 1
    assert capfd.readouterr().out.endswith("nothing is sent\n")


def test_a_policy_alone_is_compared_among_the_objects_that_are_there_too(tmp_path, capfd):
    """As a hook has it: two states of one file, of which the folder beside has one as well."""
    beside = tmp_path / "manifests"
    beside.mkdir()
    (beside / "services.yaml").write_text(yaml.safe_dump_all([*STABLE, *V2]))
    for path, weight in ((tmp_path / "before.yaml", 10), (beside / "policy.yaml", 20)):
        path.write_text(yaml.safe_dump(canary(weight)))
    paths = [str(tmp_path / "before.yaml"), str(beside / "policy.yaml")]
    assert cli.main(["diff", "--context", str(beside), *paths]) == 1
    assert "1 gateway, 1 resource sent, 0 removed" in capfd.readouterr().out
    assert cli.main(["diff", "--context", str(tmp_path / "none"), *paths]) == 2


def test_the_same_twice_is_the_same(folders):
    for number in range(20):
        folders.write("old", isvc(f"m{number}"), file=f"{number}.yaml")
        folders.write("new", isvc(f"m{number}"), *backend(f"m{number}-predictor", 9000), file=f"{number}.yaml")
    first = folders.diff()
    assert first[0] == 1
    assert folders.diff() == first
    names = [line for line in first[1].splitlines() if line.startswith("gateway ")]
    assert names == sorted(names)


def on_terminal(*command, **variables):
    """What a command writes to a terminal; it is read to its end."""
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "TERM"}}
    with subprocess.Popen(command, stdout=theirs, env=environment | {"TERM": "xterm"} | variables) as process:
        os.close(theirs)
        written = b""
        with contextlib.suppress(OSError):  # the end of a terminal
            while part := os.read(ours, 65536):
                written += part
    os.close(ours)
    return process.returncode, written.decode()


def test_a_terminal_gets_colours_unless_it_wants_none(folders):
    folders.both(*STABLE, *V2)
    folders.write("old", canary(10), file="p.yaml")
    folders.write("new", canary(50), file="p.yaml")
    command = (sys.executable, "-m", "xdserve", "diff", str(folders.root / "old"), str(folders.root / "new"))
    code, written = on_terminal(*command)
    assert code == 1
    assert "\x1b[31m" in written
    assert "\x1b[3" not in on_terminal(*command, NO_COLOR="1")[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Missing argument 'OLD'."),
        ((".",), "Missing argument 'NEW'."),
        (("none", "."), "OLD: found 'none', allowed a file or directory that exists"),
        ((".", "none"), "NEW: found 'none', allowed a file or directory that exists"),
        (("-", "-"), "NEW: found '-', allowed standard input once"),
        ((".", ".", "-o", "yaml"), "Invalid value for '--output' / '-o': 'yaml' is not one of 'text', 'json'."),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(arguments, said, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["diff", *arguments]) == 2
    assert capfd.readouterr() == ("", f"xdserve: {said}\n")
