"""What Envoys are made to have said, and the store's files, for its tests."""

from __future__ import annotations

import dataclasses
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

from translator.objects.ref import Origin, Ref
from xds.memory import Cause, Memory, Refusal
from xds.types import ResourceType
from xds.wire.resource import resource

ORIGIN = Origin(Ref("serving.kserve.io", "InferenceService", "models", "iris"), "spec.predictor")
ROOT = Path(__file__).parents[2]


def good(name="iris", body=b"one", type_=ResourceType.ROUTE, **more):
    return dataclasses.replace(resource(type_, name, body, origin=ORIGIN), **more)


def refusal(**more):
    values = {"version": "f00", "code": 13, "message": "bad regex", "node": "envoy-1", "cause": Cause.REFUSED}
    return Refusal(**values | more)


def memory(*resources, refused=(), type_=ResourceType.ROUTE, name="iris"):
    return Memory(type=type_, name=name, good=resources, refused=refused)


def whole(memories):
    """All of it, to be compared: a Resource is equal already if its version is."""
    return {
        gateway: {(one.type, one.name): (list(map(dataclasses.astuple, one.good)), one.refused) for one in found}
        for gateway, found in memories.items()
    }


def files(path):
    """What is on the disk, and when it was written."""
    return {one.name: (one.read_bytes(), one.stat().st_mtime_ns) for one in path.parent.iterdir()}


def table(path, name):
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
        found = database.execute(f"SELECT * FROM {name}").fetchall()
    database.close()
    return found


def child(code):
    """A process of its own, and what it prints."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
