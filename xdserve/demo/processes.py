"""Child processes that leave nothing behind: in groups of their own, logs in files, ended in order, tied to us."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

_TETHER = str(Path(__file__).with_name("tether.py"))
_LOCAL_PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_TAIL_LINES = 15


class ChildError(Exception):
    """A child ended, or did not do what it was started for; the text has the end of its log."""


@dataclass(frozen=True, slots=True)
class Child:
    """One running (or ended) child process, the leader of its own process group."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        """The process id, also that of its group."""
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self.process.poll() is None

    def check(self) -> None:
        """Raise ChildError if it has ended."""
        if not self.running:
            raise self.failure(f"ended with status {self.process.returncode}")

    def failure(self, what: str) -> ChildError:
        """An error that says what went wrong and shows the end of the child's log."""
        lines = self.log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        return ChildError("\n  ".join([f"{self.name} {what}", *lines]))

    def stop(self, seconds: float = 5.0) -> int:
        """Ask it to end (SIGTERM), make it end (SIGKILL) after `seconds`, and give its exit status."""
        self._signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """End it at once."""
        self._signal(signal.SIGKILL)
        return self.process.wait()

    def _signal(self, number: signal.Signals) -> None:
        """Reach the whole group, so that a child of the child ends too."""
        if self.running:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)


class Children:
    """A context: whatever was started in it has ended when it is left, the last started first."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self._children: list[Child] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with ExitStack() as stack:  # each is stopped, whatever happens to the others
            for child in self._children:
                stack.callback(child.stop)

    def start(self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None) -> Child:
        """Start `command`; its output goes to the file `<name>.log`. `env` replaces the environment."""
        log = self.logs / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(  # noqa: S603 - the demo's own commands, no shell
                [sys.executable, "-IS", _TETHER, str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                process_group=0,  # Ctrl-C on the terminal reaches us alone, and we end them in order
            )
        child = Child(name, process, log)
        self._children.append(child)
        return child

    def kill(self, child: Child) -> None:
        """End one at once, on purpose: it is not missed."""
        child.kill()
        self._children.remove(child)

    def check(self) -> None:
        """Raise ChildError if one has ended that was not to."""
        for child in self._children:
            child.check()


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Ports of `host` that nobody listens on now.

    Taken from outside of the range that the kernel gives to outgoing connections, and at random: what could take them
    before their owner does is another server with the same luck.
    """
    low, high = _ephemeral()
    candidates = [port for port in range(10_000, 61_000) if not low <= port <= high]
    found: list[int] = []
    with ExitStack() as held:
        for port in random.sample(candidates, len(candidates)):
            if len(found) == count:
                break
            if _bound(held.enter_context(socket.socket()), host, port):
                found.append(port)
    return found


def _ephemeral() -> tuple[int, int]:
    try:
        low, high = map(int, _LOCAL_PORT_RANGE.read_text().split())
    except (OSError, ValueError):
        return 32_768, 60_999
    return (low, high) if low > 15_000 or high < 56_000 else (32_768, 60_999)


def _bound(probe: socket.socket, host: str, port: int) -> bool:
    try:
        probe.bind((host, port))
    except OSError:
        return False
    return True
