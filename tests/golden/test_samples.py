"""What `translate` makes of the samples, also of those that KServe's real controller wrote: Envoy accepts all of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.golden.validation import problems

SAMPLES = Path(__file__).parent.parent / "samples"
FILES = sorted(path for path in SAMPLES.rglob("*.yaml"))
FOLDERS = [*sorted(path for path in (SAMPLES / "kserve-cluster-state").iterdir() if path.is_dir()), SAMPLES / "kubedl"]


def _named(path: Path) -> str:
    return str(path.relative_to(SAMPLES))


@pytest.fixture(scope="module")
def translated(tmp_path_factory):
    """What each sample gives by the command itself: exit code, resources, lines on stderr."""
    script = tmp_path_factory.mktemp("samples") / "all.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), *map(str, (*FILES, *FOLDERS))]
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env=environment)
    return {_named(Path(path)): result for path, result in json.loads(done.stdout).items()}


SCRIPT = """
import contextlib, io, json, sys
from xdserve.cli import main

results = {}
for path in sys.argv[1:]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["translate", path, "-o", "json"])
    results[path] = [code, json.loads(out.getvalue()), err.getvalue().splitlines()]
print(json.dumps(results))
"""


def test_there_are_samples():
    assert len(FILES) >= 40
    assert len(FOLDERS) == 3


def test_envoy_accepts_what_every_sample_gives(translated):
    assert problems({name: gateways for name, (_, gateways, _) in translated.items() if gateways}) == []


@pytest.mark.parametrize("name", [_named(path) for path in (*FILES, *FOLDERS)])
def test_a_sample_gives_resources_or_says_in_a_line_what_is_missing(name, translated):
    code, gateways, said = translated[name]
    assert code in {0, 1}
    assert gateways or said
    assert [line for line in said if not line.strip() or line.startswith((" ", "Traceback"))] == []
    assert [line for line in said if "internal error" in line] == []
    # Exit code 0 is for warnings alone.
    assert code == int(any(not line.startswith("warning: ") for line in said))
