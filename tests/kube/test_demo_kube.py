"""The demo on a real kube-apiserver, as its user runs it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509

from tests.kube.demo.keys import TOKEN_SECONDS, write_keys
from tests.kube.demo.scenario import AFTER, BEFORE, MEANWHILE
from tests.support.processes import clean_environment
from tests.support.wait import wait_until

DEMO = [sys.executable, "-m", "tests.kube.demo", "--plain"]
PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": clean_environment()}
A_DAY = timedelta(days=1)


class Run(NamedTuple):
    status: int
    text: str
    errors: str
    figures: dict


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One run, in short."""
    file = tmp_path_factory.mktemp("demo") / "figures.json"
    done = subprocess.run([*DEMO, "--seconds", "0.1", "--json", str(file)], **PIPES, timeout=180, check=False)
    return Run(done.returncode, done.stdout, done.stderr, json.loads(file.read_text()) if file.exists() else {})


@pytest.fixture(scope="module")
def steps(run):
    return {step["name"]: step for step in run.figures["steps"]}


def test_all_promises_held(run, steps):
    assert run.status == 0, run.text + run.errors
    assert list(steps) == list(chain(BEFORE, MEANWHILE, AFTER))
    assert [name for name, step in steps.items() if not step["held"] or step["failed"]] == []
    assert run.errors == ""


@pytest.mark.parametrize("name", ["canary 90/10", "patched to 50/50", "bad policy"])
def test_the_wanted_split_lies_in_the_interval_of_the_observed(steps, name):
    step = steps[name]
    assert step["requests"] >= 2000
    for variant, (low, high) in step["interval"].items():
        assert low <= step["wanted"][variant] <= high


def test_patches_are_timed_from_the_apiservers_answer(steps):
    times = steps["patch to first answer"]["edit_to_answer_ms"]
    assert times["edits"] == len(times["values"]) == 20


def test_commands_and_what_they_say_are_shown(run):
    lines = run.text.splitlines()
    assert sum(line.startswith("$ kubectl -n models patch trafficpolicy iris ") for line in lines) >= 6
    assert any(line.startswith("$ helm upgrade --install xdserve ") for line in lines)
    assert sum(line.split()[:2] == ["Deployment", "iris-gateway"] for line in lines) == 1
    assert any(
        line.startswith("  Accepted=False Invalid: spec.rules[0].matches[0].headers[0].value: ") for line in lines
    )


def test_nothing_in_it_expires_while_somebody_watches(tmp_path):
    write_keys(tmp_path)
    certificates = [x509.load_pem_x509_certificate(path.read_bytes()) for path in tmp_path.glob("keys/*.pem")]
    assert len(certificates) == 3
    assert all(one.not_valid_after_utc > datetime.now(UTC) + A_DAY for one in certificates)
    assert timedelta(seconds=TOKEN_SECONDS) >= A_DAY


def test_a_machine_with_loopback_alone_is_told_what_is_missing():
    """As these tests' own network is: no way out of it, so no address that others see."""
    done = subprocess.run([*DEMO, "--machine-network"], **PIPES, timeout=60, check=False)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert line.startswith("demo-kube: ")
    assert "loopback" in line


@pytest.mark.parametrize(
    "option", [["--seconds", "0"], ["--seconds", "long"], ["--json", "/no/such/file"], ["--no-such"]]
)
def test_a_wrong_option_is_told(option):
    done = subprocess.run([*DEMO, *option], **PIPES, timeout=60, check=False)
    assert done.returncode == 2
    assert option[0] in done.stderr


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_nothing_is_left_when_it_is_ended(number, status):
    folder = end_while_it_runs(number, status)
    await wait_until(lambda: not processes_that_name(folder), what="all children to be gone")


def end_while_it_runs(number, status):
    """The folder that its children's command lines name."""
    with subprocess.Popen(DEMO, **PIPES) as demo:
        assert demo.stdout.readline().startswith("# starting")
        folder = demo.stdout.readline().split("cd ")[1].strip()
        assert processes_that_name(folder)
        demo.send_signal(number)
        out, err = demo.communicate(timeout=30)
    assert (demo.returncode, err) == (status, ""), out + err
    return folder


def processes_that_name(folder):
    """Those with the folder in their command lines; one that has ended has none."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(FileNotFoundError, ProcessLookupError):
            if folder.encode() in file.read_bytes():
                found.append(file.parent.name)
    return found
