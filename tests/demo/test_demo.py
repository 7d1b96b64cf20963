"""The demo as its user runs it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import clean_environment, exists
from tests.support.wait import wait_until

DEMO = [sys.executable, "-m", "xdserve", "demo", "--plain"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One run of the demo: its exit, what it printed, and its figures."""
    file = tmp_path_factory.mktemp("demo") / "figures.json"
    command = [*DEMO, "--seconds", "1", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=clean_environment())
    assert done.returncode == 0, done.stdout + done.stderr
    return done, json.loads(file.read_text())


@pytest.fixture
def heeded_ctrl_c():
    """Children hear SIGINT, also where the tests run in the background of a shell that has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def steps(run):
    return {step["name"]: step for step in run[1]["steps"]}


def test_all_promises_held(run):
    done, figures = run
    assert figures["held"]
    assert [step["name"] for step in figures["steps"] if not step["held"]] == []
    assert done.stderr == ""
    assert "What was promised" in done.stdout


def test_each_step_has_its_requests_and_none_failed(steps):
    assert {name: step["failed"] for name, step in steps.items() if step["failed"]} == {}
    assert {name: step["requests"] for name, step in steps.items() if step["requests"] < 2000} == {}


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


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.usefixtures("heeded_ctrl_c")
async def test_nothing_is_left_when_it_is_ended(number, status):
    pids = end_while_it_runs(number, status)
    assert len(pids) == 4
    await wait_until(lambda: not any(map(exists, pids)), what="all children to be gone")


def end_while_it_runs(number, status):
    with subprocess.Popen(DEMO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
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


def test_no_envoy_is_one_line():
    done = subprocess.run([*DEMO, "--envoy", "/no/such/envoy"], capture_output=True, text=True, timeout=60, check=False)
    line = "xdserve demo: /no/such/envoy is no program that can be run: name an Envoy binary"
    assert (done.returncode, done.stderr.splitlines()) == (2, [line])
