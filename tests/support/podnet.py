"""A network of a pod's own: `with PodNetwork() as network: network.address`, reached from the test's and back.

As in a cluster, a pod has an address and all ports of it: two pods of one gateway listen on the same port. The test is
in a `tests.support.netns.Network`; a pair of virtual interfaces leads from there to a namespace of the pod's, whose
way out ends at the test's. What is started within `entered()` is in the pod.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address, ip_network
from itertools import count

from tests.support.netns import bring_up, set_network, unshare_network

SUBNET = ip_network("10.90.0.0/16")
"""Pods' addresses: each has four of its own, one for it and one for the test's end."""

_NUMBERS = count(1)
_SIOCADDRT = 0x890B  # from <linux/sockios.h>
_RTF_UP, _RTF_GATEWAY, _ENTRY_BYTES = 1, 2, 120  # from <linux/route.h>
_NEWLINK, _DELLINK = 16, 17  # from <linux/rtnetlink.h>
_REQUEST, _ACK, _EXCL, _CREATE = 1, 4, 0x200, 0x400  # from <linux/netlink.h>
_IFNAME, _LINKINFO, _NET_NS_FD = 3, 18, 28  # from <linux/if_link.h>
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_ERROR = struct.Struct("=IHHIIi")
_OURS = "/proc/thread-self/ns/net"
_IN_POD = "eth0"


class PodNetwork:
    """A context: a namespace with one interface, whose `address` others reach."""

    def __enter__(self):
        number = next(_NUMBERS)
        near, far = SUBNET[4 * number + 1], SUBNET[4 * number + 2]
        self.address, self._link = str(far), f"pod{number}"
        with ExitStack() as stack:
            self._test = os.open(_OURS, os.O_RDONLY)
            stack.callback(os.close, self._test)
            self._pod = self._namespace()
            stack.callback(os.close, self._pod)
            _netlink(_NEWLINK, _CREATE | _EXCL, _pair(self._link, self._pod))
            # Not left to the end of the namespace, which the kernel puts off.
            stack.callback(_netlink, _DELLINK, 0, _interface() + _attribute(_IFNAME, _name(self._link)))
            bring_up(self._link, near, _mask())
            with self.entered():
                bring_up("lo", ip_address("127.0.0.1"), ip_address("255.0.0.0"))
                bring_up(_IN_POD, far, _mask())
                _route_by(near)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error):
        self._stack.close()

    @contextmanager
    def entered(self):
        """This thread is in the pod: for what is started or opened here, and never across an `await`."""
        set_network(self._pod)
        try:
            yield
        finally:
            set_network(self._test)

    def _namespace(self):
        unshare_network()
        try:
            return os.open(_OURS, os.O_RDONLY)
        finally:
            set_network(self._test)


def _mask():
    return ip_network((0, 30)).netmask


def _route_by(gateway):
    """All that is not near is reached by `gateway`: the kernel's `struct rtentry`."""
    nowhere = _inet("0.0.0.0")
    flags = _RTF_UP | _RTF_GATEWAY
    entry = struct.pack("Q16s16s16sH", 0, nowhere, _inet(gateway), nowhere, flags).ljust(_ENTRY_BYTES, b"\0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCADDRT, entry)


def _inet(address):
    return struct.pack("HH4s8x", socket.AF_INET, 0, ip_address(str(address)).packed)


def _pair(name, namespace):
    """Two virtual interfaces, one here, one in another namespace."""
    far = _interface() + _attribute(_IFNAME, _name(_IN_POD)) + _attribute(_NET_NS_FD, struct.pack("=I", namespace))
    peer = _attribute(_INFO_DATA, _attribute(_VETH_PEER, far))
    return (
        _interface()
        + _attribute(_IFNAME, _name(name))
        + _attribute(_LINKINFO, _attribute(_INFO_KIND, b"veth\0") + peer)
    )


def _interface():
    """`struct ifinfomsg` of no interface yet."""
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, 0, 0, 0)


def _name(text):
    return text.encode() + b"\0"


def _attribute(kind, content):
    length = 4 + len(content)
    return struct.pack("=HH", length, kind) + content + b"\0" * (-length % 4)


def _netlink(kind, flags, body):
    """One request to the kernel; OSError if it refuses."""
    header = struct.pack("=IHHII", 16 + len(body), kind, flags | _REQUEST | _ACK, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.send(header + body)
        *_, error = _ERROR.unpack_from(kernel.recv(1 << 16))
    if error:
        raise OSError(-error, os.strerror(-error))
