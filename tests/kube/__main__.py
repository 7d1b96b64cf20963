"""A kube-apiserver for trials by hand: `python -m tests.kube FOLDER`.

It has the CRDs, prints a line of JSON when it is ready, ends on SIGTERM or Ctrl-C, and goes on with what the folder
has. It runs in the machine's own network, on loopback.
"""

from __future__ import annotations

import json
import signal
import sys
from contextlib import suppress
from pathlib import Path

from tests.support.kube import Apiserver
from tests.support.kube_seed import seed


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / Apiserver.DATA).exists():
        seed(folder)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with Apiserver(folder) as apiserver, suppress(KeyboardInterrupt):
        apiserver.start()
        found = {"kubeconfig": apiserver.kubeconfig, "url": apiserver.url, "ca": apiserver.ca, "token": apiserver.token}
        sys.stdout.write(json.dumps({name: str(value) for name, value in found.items()}) + "\n")
        sys.stdout.flush()
        signal.pause()


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
