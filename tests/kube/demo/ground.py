"""Where the demo runs: in a network of its own if it may make one, else in the machine's.

EndpointSlices refuse loopback, so models need another address: any of a network of our own, or the machine's. In the
machine's network ports may be taken, so gateways get free ones there, by a ServiceGateway.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address

from tests.support.netns import Network, NetworkError

_ANYWHERE = ("192.0.2.1", 9)  # documentation's addresses: nothing is ever sent there


class NoGroundError(Exception):
    """There is no address to run models at; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Ground:
    """`address` is one that EndpointSlices accept; `why` says why the network is the machine's, empty if it is ours.

    `own_user`: to make a network a user namespace had to be made first.
    """

    address: str
    why: str = ""
    own_user: bool = False

    @property
    def own(self):
        """Whether the network is the demo's alone."""
        return not self.why


@contextmanager
def ground(*, machine=False, own_user=False):
    """Enter a network for the block; with `machine` do not try to make one. Raises NoGroundError."""
    with ExitStack() as stack:
        try:
            network = None if machine else stack.enter_context(Network())
        except NetworkError as error:
            yield Ground(_machine_address(str(error)), f"not permitted: {error.__cause__.strerror}")
            return
        yield (
            Ground(network.address(), own_user=own_user)
            if network
            else Ground(_machine_address("it is not to be made"), "not wanted")
        )


def _machine_address(why):
    """The address from which this machine speaks to others."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_ANYWHERE)
        except OSError:
            found = ip_address("0.0.0.0")
        else:
            found = ip_address(probe.getsockname()[0])
    if found.is_loopback or found.is_unspecified or found.is_link_local:
        raise NoGroundError(
            f"there is no network of the demo's own ({why}), and this machine has no address but loopback, which "
            "EndpointSlices refuse"
        )
    return str(found)
