"""A network of a test's own: `with Network() as network: network.address()`.

EndpointSlices refuse loopback addresses, and a test has no business with the machine's interfaces. So the thread that
enters a `Network` moves into a new network namespace (Linux): what it opens there, and every process that it starts,
sees a loopback interface on which all of `SUBNET` is local, and nothing else: no other interface, no way out. On
leaving, the thread is back in the machine's network; the namespace ends with its last process.

- Only this thread moves, and threads and processes that it starts afterwards. Threads stay where they began: gRPC keeps
  some for later calls, so it must not be used before entering and inside, nor inside and after leaving.
- An event loop belongs to where it was made: enter first, as a fixture that is not async does.
- It needs CAP_SYS_ADMIN. Who is not root gets that in a user namespace of their own (`allow_networks`), which must be
  made while the process has one thread: at the start of the run. They cannot go back on leaving: what follows in that
  process stays in the last network it made, where loopback is as anywhere.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from ipaddress import ip_network
from pathlib import Path

SUBNET = ip_network("10.89.0.0/16")
"""Its addresses are local, each of them, without being added: a server may bind any."""

SUBNET_OF_IPV6 = ip_network("fd89::/64")
"""Its addresses are local once they are added."""

_CLONE_NEWNET, _CLONE_NEWUSER = 0x4000_0000, 0x1000_0000  # from <linux/sched.h>
_CAP_SYS_ADMIN = 21  # from <linux/capability.h>
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCSIFADDR, _SIOCSIFNETMASK = 0x8913, 0x8914, 0x8916, 0x891C  # <linux/sockios.h>
_IFF_UP = 1  # from <linux/if.h>
_OURS = "/proc/thread-self/ns/net"


class NetworkError(Exception):
    """This process may not make a network namespace; the text says what to do."""


class Network:
    """A context: inside it, this thread is in a network namespace that was made for it."""

    def __enter__(self):
        self._addresses, self._number = iter(SUBNET.hosts()), 0
        with ExitStack() as stack:
            machine = os.open(_OURS, os.O_RDONLY)
            stack.callback(os.close, machine)
            self._stayed = stack.enter_context(ThreadPoolExecutor(1))
            self._stayed.submit(str).result()  # its thread starts now, and does not move with us
            try:
                unshare_network()
            except OSError as error:
                raise NetworkError(_advice(error)) from error
            stack.callback(_leave, machine)
            _bring_up_loopback()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error):
        self._stack.close()

    def address(self):
        """An address that this network has not given to anyone yet."""
        return str(next(self._addresses))

    def ipv6_address(self):
        """An address of IPv6 that this network has not given to anyone yet."""
        self._number += 1
        return add_ipv6(self._number)

    def outside(self, function, *arguments):
        """What `function` gives in the machine's network: called in a thread that stayed there."""
        return self._stayed.submit(function, *arguments).result()


def allow_networks():
    """Give this process the right to make networks, if it has not got it and the kernel lets it.

    The process keeps its user and its network. Does nothing where that is refused: `Network` says so when it is needed.
    """
    if _may_make_networks():
        return
    child = os.fork()  # tries it first: there is no way back from a namespace that has no user
    if not child:
        os._exit(_owned())
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
        _own()


def _owned():
    """The exit status of who tries `_own`."""
    try:
        _own()
    except OSError:
        return 1
    return 0


def _own():
    """Move into a user namespace of our own, as the user that we are."""
    user, group = os.geteuid(), os.getegid()
    _unshare(_CLONE_NEWUSER)
    me = Path("/proc/self")
    (me / "setgroups").write_text("deny")
    (me / "uid_map").write_text(f"{user} {user} 1")
    (me / "gid_map").write_text(f"{group} {group} 1")


def _may_make_networks():
    lines = Path("/proc/self/status").read_text().splitlines()
    effective = next(line.split()[1] for line in lines if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> _CAP_SYS_ADMIN & 1)


def _advice(error):
    return (
        f"cannot make a network namespace: {error.strerror}. That takes root, a container with CAP_SYS_ADMIN, or a "
        "kernel that lets users make namespaces "
        "(sysctl user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns)"
    )


def _bring_up_loopback():
    """Make all of `SUBNET` local: on a loopback interface an address stands for its whole subnet."""
    bring_up("lo", SUBNET[1], SUBNET.netmask, label="lo:1")


def bring_up(interface, address, mask, *, label=None):
    """Turn an interface of this thread's network on, with an address; `label` is its name as of that address."""
    name = interface.encode()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        flags = struct.unpack_from("h", fcntl.ioctl(control, _SIOCGIFFLAGS, struct.pack("16s24x", name)), 16)[0]
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh22x", name, flags | _IFF_UP))
        for request, given in ((_SIOCSIFADDR, address), (_SIOCSIFNETMASK, mask)):
            packed = struct.pack("16sHH4s16x", (label or interface).encode(), socket.AF_INET, 0, given.packed)
            fcntl.ioctl(control, request, packed)


def add_ipv6(number):
    """An address of IPv6 that is local in this thread's network from now on."""
    address = SUBNET_OF_IPV6[number]
    packed = struct.pack("=16sIi", address.packed, 128, socket.if_nametoindex("lo"))
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFADDR, packed)
    return str(address)


def bindable(address):
    """True once an address of IPv6 that was added can be listened at: the kernel takes a moment."""
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def unshare_network():
    """Put this thread into a new network."""
    _unshare(_CLONE_NEWNET)


def set_network(descriptor):
    """Put this thread into a network that a file of /proc stands for."""
    _check(_libc().setns(descriptor, _CLONE_NEWNET))


def _unshare(flags):
    _check(_libc().unshare(flags))


def _leave(machine):
    """Only root of the machine may go back: to others of the same process all of its networks are alike."""
    with suppress(PermissionError):
        set_network(machine)


def _libc():
    return ctypes.CDLL(None, use_errno=True)


def _check(result):
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
