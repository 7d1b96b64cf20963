"""The demo as its user runs it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.processes import clean_environment, exists
from tests.support.wait import wait_until
from xdserve import cli
from xdserve.demo import SCENARIOS
from xdserve.demo.scenario import STEPS

DEMO = [sys.executable, "-m", "xdserve", "demo", "--plain"]
PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": clean_environment()}


class Run(NamedTuple):
    status: int
    text: str
    errors: str
    figures: dict
    answer: dict | None


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One run of the demo, left running at its end until Ctrl-C: exit, what it said, figures, an answer meanwhile."""
    file = tmp_path_factory.mktemp("demo") / "figures.json"
    command = [*DEMO, "--seconds", "1", "--json", str(file), "--keep"]
    with subprocess.Popen(command, **PIPES) as demo:
        lines = list(until_kept(demo.stdout))
        answer = ask(lines)
        demo.send_signal(signal.SIGINT)
        rest, errors = demo.communicate(timeout=30)
    text = "".join(lines) + rest
    return Run(demo.returncode, text, errors, json.loads(file.read_text()), answer)


def until_kept(lines):
    """The lines up to the last of those to try, or to the end of a demo that did not get there."""
    envoys = 0
    for line in lines:
        yield line
        envoys += line.endswith("/clusters\n")
        if envoys == 3:
            return


def ask(lines):
    """What the first address to try answers."""
    url = re.search(r"http://\S+:predict", "".join(lines))
    if url is None:
        return None
    request = urllib.request.Request(url[0], data=b'{"instances": [[1]]}')
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)


@pytest.fixture(scope="module")
def steps(run):
    return {step["name"]: step for step in run.figures["steps"]}


def test_all_promises_held(run):
    assert run.status == 0, run.text + run.errors
    assert run.figures["held"]
    assert [step["name"] for step in run.figures["steps"] if not step["held"]] == []
    assert run.errors == ""
    assert "What was promised" in run.text


def test_it_is_left_running_to_be_tried(run):
    assert run.answer["variant"] in {"stable", "v2"}


def test_each_step_has_its_requests_and_none_failed(steps):
    assert {name: step["failed"] for name, step in steps.items() if step["failed"]} == {}
    few = {
        "protocols on one port": 1900,
        "KubeDL's rules": 1900,
        "streams through edits": 8,
        "router's limit": 18,
        "Envoy killed": 500,
        "xdserve killed": 1000,
    }
    assert {name: step["requests"] for name, step in steps.items() if step["requests"] < few.get(name, 2000)} == {}


def test_every_scenario_is_a_step(steps):
    assert list(STEPS) == list(SCENARIOS)
    assert [title for title, _ in STEPS.values()] == list(steps)


@pytest.mark.parametrize(
    ("name", "stable"),
    [
        ("canary 90/10", 0.9),
        ("edited to 50/50", 0.5),
        ("sticky cookie", 0.9),
        ("broken YAML", 0.9),
        ("bad field", 0.9),
        ("mended to 75/25", 0.75),
    ],
)
def test_the_wanted_split_lies_in_the_interval_of_the_observed(steps, name, stable):
    step = steps[name]
    assert step["wanted"] == pytest.approx({"stable": stable, "v2": 1 - stable})
    for variant, (low, high) in step["interval"].items():
        assert low <= step["observed"][variant] <= high
        assert low <= step["wanted"][variant] <= high


def test_edits_are_timed_from_the_rename_to_the_first_answer(steps):
    times = steps["edit to first answer"]["edit_to_answer_ms"]
    assert times["edits"] == len(times["values"]) >= 20
    assert 0 < times["median"] <= times["p99"] <= max(times["values"])


def test_testers_meet_the_new_model_only(steps):
    assert steps["tester's header"]["observed"] == {"v2": 1.0}


def test_users_stay_where_they_were(steps):
    assert steps["sticky cookie"]["same"] == 700


def test_what_is_broken_is_named(steps):
    for name, field in (("broken YAML", ""), ("bad field", "spec.split[1].weight")):
        error = steps[name]["error"]
        assert error["source"]["file"] == "iris/traffic-policy.yaml"
        assert isinstance(error["source"]["document"], int)
        assert (error["field"], "\n" in error["message"]) == (field, False)
    assert steps["mended to 75/25"]["errors"] == []


def test_three_protocols_are_split_alike_and_explanations_come_from_the_explainer(steps):
    by = steps["protocols on one port"]["by"]
    assert {kind: set(counts) for kind, counts in by.items()} == {
        "v1": {"stable", "v2"}, "v2": {"stable", "v2"}, "gRPC": {"stable", "v2"}, ":explain": {"explainer"},
    }  # fmt: skip


def test_a_transformer_gets_what_it_is_to_get(steps):
    by = steps["transformer in front"]["by"]
    assert {kind: set(counts) for kind, counts in by.items()} == {
        "v1": {"transformer", "v2"}, "v2": {"transformer", "v2"}, "gRPC": {"stable", "v2"},
        ":explain": {"explainer"}, "transformer's host": {"transformer"}, "predictor's host": {"stable"},
    }  # fmt: skip


def test_rules_of_kubedl_lead_where_they_say(steps):
    by = steps["KubeDL's rules"]["by"]
    assert [set(counts) for counts in by.values()] == [{"v1", "v2"}, {"v2"}, {"v1"}, {"v2"}]


def test_streams_run_through_three_edits(steps):
    step = steps["streams through edits"]
    assert (step["whole"], step["through"], step["edits"]) == (8, 8, 3)


def test_the_router_lets_two_run_four_wait_and_refuses_the_rest(steps):
    step = steps["router's limit"]
    assert (step["peak"], sorted(step["order"])) == (2, list(range(6)))
    assert all(abs(place - number) < 2 for place, number in enumerate(step["order"]))
    assert step["refused"] > 0
    assert step["refused"] + step["answered"] == 18


def test_a_killed_envoy_is_back(steps):
    assert steps["Envoy killed"]["serves_after_ms"] > 0


def test_a_killed_xdserve_costs_nothing_and_sends_what_is_changed_alone(steps):
    step = steps["xdserve killed"]
    assert (step["failed"], step["resent"], step["sent_by_an_edit"]) == (0, 0, 1)


def test_one_scenario_can_be_played_alone(tmp_path):
    file = tmp_path / "figures.json"
    command = [*DEMO, "--seconds", "0.1", "--scenario", "limit", "--json", str(file)]
    done = subprocess.run(command, **PIPES, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [step["name"] for step in json.loads(file.read_text())["steps"]] == ["router's limit"]


def test_a_disk_that_fills_up_meanwhile_is_one_line_after_the_table():
    done = subprocess.run(
        [*DEMO, "--seconds", "0.1", "--scenario", "canary", "--json", "/dev/full"], **PIPES, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (2, "xdserve demo: /dev/full: No space left on device\n")
    assert "canary 90/10" in done.stdout


def test_a_scenario_that_there_is_not_is_one_line_that_names_all(capfd):
    assert cli.main(["demo", "--scenario", "nothing"]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert all(name in line for name in SCENARIOS)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_nothing_is_left_when_it_is_ended(number, status):
    pids = end_while_it_runs(number, status)
    assert len(pids) == 12  # xdserve, three Envoys, eight model servers
    await wait_until(lambda: not any(map(exists, pids)), what="all children to be gone")


def end_while_it_runs(number, status):
    with subprocess.Popen(DEMO, **PIPES) as demo:
        assert demo.stdout.readline().startswith("... ")
        pids = children_of(demo.pid)
        demo.send_signal(number)
        out, err = demo.communicate(timeout=30)
    assert (demo.returncode, "Traceback" in out + err) == (status, False), err
    return pids


def children_of(parent):
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if parent_of(pid) == parent]


def parent_of(pid):
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


@pytest.mark.parametrize(
    ("option", "line"),
    [
        (["--envoy", "/no/such/envoy"], "/no/such/envoy is no program that can be run: name an Envoy binary"),
        (["--json", "/no/such/file"], "/no/such/file: No such file or directory"),
    ],
)
def test_what_makes_a_start_impossible_is_one_line(option, line):
    done = subprocess.run([*DEMO, *option], **PIPES, timeout=60, check=False)
    assert (done.returncode, done.stderr.splitlines()) == (2, [f"xdserve demo: {line}"])
