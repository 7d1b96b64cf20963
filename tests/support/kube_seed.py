"""The data of an etcd that has the CRDs already: to install them takes longer than to start an apiserver.

Made once for each set of CRDs and programs, as users install them, and kept in the user's cache.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

from tests.support.kube import Apiserver
from tests.support.kube_binaries import cache_folder, kube_binaries, locked

_ROOT = Path(__file__).parents[2]

CRDS = (_ROOT / "tests" / "kube" / "crds", _ROOT / "helm" / "xdserve" / "files" / "crds")
"""The upstream CRDs that xdserve reads, unchanged (KServe, KubeDL, Gateway API's ReferenceGrant), and the chart's."""


def seed(folder):
    """Give an Apiserver's folder, before its first start, a cluster that has `CRDS`; the folder."""
    kept = cache_folder() / f"kube-seed-{_key()}"
    if not kept.exists():
        with locked("kube-seed"):
            if not kept.exists():
                _make(kept)
    shutil.copytree(kept, folder / Apiserver.DATA)
    return folder


def _make(kept):
    """Put it in place whole, by a rename."""
    with tempfile.TemporaryDirectory(dir=kept.parent, prefix="seeding-") as folder:
        with Apiserver(Path(folder)) as apiserver:
            apiserver.start().install(*CRDS)
            apiserver.stop()
        (Path(folder) / Apiserver.DATA).rename(kept)


def _key():
    """Another one for other CRDs or other programs."""
    files = [path for folder in CRDS for path in sorted(folder.glob("*.yaml"))]
    programs = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in kube_binaries().values()]
    parts = [repr(programs).encode(), *(path.read_bytes() for path in files)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
