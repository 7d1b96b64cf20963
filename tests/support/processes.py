"""Children of a test: `with Children(tmp_path) as children: children.start(name, command)`."""

from __future__ import annotations

import os
import time
from pathlib import Path

from xdserve.demo import processes
from xdserve.demo.processes import Child, ChildError, Children

__all__ = ["Child", "ChildError", "Children", "clean_environment", "exists", "free_ports", "wait_for_line"]


_GIVEN = set()


def free_ports(count, host="127.0.0.1"):
    """Ports that nobody listens on, and that nobody else in this run was given: they may be about to listen there."""
    found = []
    while missing := count - len(found):
        new = set(processes.free_ports(missing, host)) - _GIVEN
        _GIVEN.update(new)
        found += new
    return found


def exists(pid):
    """Whether a process runs; a zombie that waits to be reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in {"Z", "X"}


def clean_environment(**extra):
    """This environment without settings of xdserve, and with `extra`."""
    return {name: value for name, value in os.environ.items() if not name.startswith("XDSERVE_")} | extra


def wait_for_line(child, prefix, seconds=20.0):
    """What follows `prefix` on the first line of the child's log that starts with it; ChildError if none comes."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for line in child.log.read_text(errors="replace").splitlines(keepends=True):
            if line.startswith(prefix) and line.endswith("\n"):
                return line.removeprefix(prefix).strip()
        child.check()
        time.sleep(0.01)
    raise child.failure(f"did not print {prefix!r} in {seconds:g} s")
