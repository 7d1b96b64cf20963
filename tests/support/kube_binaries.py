"""The programs of a kube-apiserver: built once from Go modules into the user's cache, or given by KUBEBUILDER_ASSETS.

`python -m tests.support.kube_binaries` builds now and prints where.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "kube" / "apiserver"
_GIVEN = "KUBEBUILDER_ASSETS"
_BINARY = "kube-apiserver"
_VERSION = "k8s.io/component-base/version"


class BinaryError(Exception):
    """A program is not there, or cannot be built; the text says what to do."""


def kube_binaries():
    """The programs by name: `kube-apiserver` alone if it is ours, with etcd in it, else that and `etcd`.

    Raises BinaryError.
    """
    given = os.environ.get(_GIVEN)
    return _given(Path(given)) if given else {_BINARY: _built()}


def kubectl_binary():
    """The kubectl beside this Python, else the one on PATH."""
    return _program("kubectl", "it comes with `make .venv/ready`")


def cache_folder():
    """Where the project keeps what takes long to make."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xdserve"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def locked(name):
    """Inside this block no other process makes the same thing."""
    with (cache_folder() / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _given(folder):
    found = {name: folder / name for name in (_BINARY, "etcd")}
    for path in found.values():
        if not os.access(path, os.X_OK):
            raise BinaryError(f"{_GIVEN}: {path} is not there or not executable")
    return found


def _built():
    """The program of `SOURCE`, from the cache; the first who asks builds it, others wait for that."""
    binary = cache_folder() / f"kube-apiserver-{_key()}" / _BINARY
    if not binary.exists():
        with locked("kube-apiserver"):
            if not binary.exists():
                _build(binary)
    return binary


def _key():
    """Another one for other sources, another build or another kind of machine."""
    sources = sorted([*SOURCE.glob("go.*"), *SOURCE.glob("*.go")])
    parts = [platform.machine().encode(), *map(str.encode, _flags()), *(path.read_bytes() for path in sources)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _build(binary):
    """Put the folder of the binary in place whole, by a rename."""
    go = _program("go", "install Go 1.26 or newer, run `make .venv/ready` (which brings it), or set KUBEBUILDER_ASSETS")
    sys.stderr.write(f"building {binary} with {go}: minutes, once\n")
    with tempfile.TemporaryDirectory(dir=binary.parents[1], prefix="building-") as folder:
        made = Path(folder) / binary.parent.name
        command = [str(go), "build", *_flags(), "-o", str(made / binary.name), "."]
        environment = os.environ | {"GOFLAGS": "-mod=readonly", "CGO_ENABLED": "0", "GOWORK": "off"}
        done = subprocess.run(command, cwd=SOURCE, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BinaryError(f"{' '.join(command)} failed in {SOURCE}:\n{done.stderr[-4000:]}")
        made.rename(binary.parent)


def _flags():
    """Without the version in it kubectl cannot talk to the server."""
    version = re.search(r"k8s\.io/kubernetes (v(\d+)\.(\d+)\S+)", (SOURCE / "go.mod").read_text())
    values = zip(("gitVersion", "gitMajor", "gitMinor"), version.groups(), strict=True)
    linked = " ".join(f"-X {_VERSION}.{name}={value}" for name, value in values)
    return ["-trimpath", "-buildvcs=false", "-ldflags", f"-s -w {linked}"]


def _program(name, advice):
    beside = Path(sys.executable).with_name(name)
    found = beside if beside.exists() else shutil.which(name)
    if found is None:
        raise BinaryError(f"{name} is missing: {advice}")
    return Path(found)


if __name__ == "__main__":
    sys.stdout.writelines(f"{path}\n" for path in kube_binaries().values())
