"""The demo on a real kube-apiserver, edited with kubectl: `python -m tests.kube.demo`, or `make demo-kube`.

Exit code 0: all held; 1: something did not; 2: it could not be started.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from tests.kube.demo.ground import NoGroundError, ground
from tests.kube.demo.scenario import play
from tests.support.chart import HelmRefused
from tests.support.kube_binaries import BinaryError, kube_binaries, kubectl_binary
from tests.support.netns import allow_networks
from xdserve.demo.envoy import EnvoyNotFoundError, find
from xdserve.demo.processes import ChildError

_USERS = Path("/proc/self/ns/user")
INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM


def main(arguments):
    """Play the demo; the exit code."""
    options = _options(arguments)
    users = _USERS.readlink()
    if not options.machine_network:
        allow_networks()  # while there is one thread: nothing that is imported may start one
    own_user = _USERS.readlink() != users
    try:
        find(), kubectl_binary(), kube_binaries()  # to build them takes the way out that the network does not have
        with ground(machine=options.machine_network, own_user=own_user) as where:
            return asyncio.run(play(options, where))
    except (BinaryError, ChildError, EnvoyNotFoundError, HelmRefused, NoGroundError) as error:
        sys.stderr.write(f"demo-kube: {error}\n")
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED
    except asyncio.CancelledError:  # SIGTERM: all children have been stopped on the way here
        return TERMINATED


def _options(arguments):
    parser = argparse.ArgumentParser(prog="make demo-kube", description=__doc__.splitlines()[0])
    parser.add_argument("--plain", action="store_true", help="print lines only, no live display")
    parser.add_argument("--seconds", type=_seconds, default=5.0, help="least time of a step (default: 5)")
    parser.add_argument("--json", type=_writable, metavar="FILE", help="write the figures to this file")
    parser.add_argument("--keep", action="store_true", help="leave all running at the end, and print what to try")
    parser.add_argument(
        "--machine-network", action="store_true", help="run in the machine's own network, not in one of the demo's"
    )
    return parser.parse_args(arguments)


def _writable(text):
    """Say now, rather than after the run, that the figures cannot be written."""
    try:
        Path(text).open("a").close()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error.strerror}") from error
    return Path(text)


def _seconds(text):
    value = float(text)
    if not 0.1 <= value <= 600:
        raise argparse.ArgumentTypeError(f"{text}: 0.1..600 is allowed")
    return value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
