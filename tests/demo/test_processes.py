"""No child outlives the demo, however the demo ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap

import pytest

from tests.support.processes import Child, ChildError, Children, exists, free_ports, wait_for_line
from tests.support.wait import wait_until

SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)",
]


def test_children_have_ended_when_the_block_is_left(tmp_path):
    with Children(tmp_path) as children:
        started = [children.start(f"sleeper-{number}", SLEEPER) for number in range(2)]
        assert all(child.running for child in started)
    assert [child.process.returncode for child in started] == [-signal.SIGTERM] * 2


def test_children_have_ended_after_an_exception(tmp_path):
    pids = []

    def fail():
        with Children(tmp_path) as children:
            pids.append(children.start("sleeper", SLEEPER).pid)
            raise RuntimeError("on the way")

    with pytest.raises(RuntimeError, match="on the way"):
        fail()
    assert not exists(pids[0])


def test_a_child_that_ignores_the_request_to_end_is_killed(tmp_path):
    with Children(tmp_path) as children:
        child = children.start("stubborn", STUBBORN)
        wait_for_line(child, "up")
        assert child.stop(seconds=0.05) == -signal.SIGKILL


def test_the_last_started_ends_first(tmp_path):
    order = tmp_path / "order"
    program = textwrap.dedent("""
        import pathlib, signal, sys
        signal.signal(signal.SIGTERM, lambda *_: (open(sys.argv[1], "a").write(sys.argv[2]), sys.exit(0)))
        print("up", flush=True)
        signal.pause()
    """)
    with Children(tmp_path) as children:
        for name in "abc":
            wait_for_line(children.start(name, [sys.executable, "-c", program, str(order), name]), "up")
    assert order.read_text() == "cba"


async def test_the_whole_group_ends(tmp_path):
    program = f"import subprocess; print('pid', subprocess.Popen({SLEEPER!r}).pid, flush=True); input()"
    forever = ["sh", "-c", f'"{sys.executable}" -c "$0" < /dev/zero', program]
    with Children(tmp_path) as children:
        grandchild = int(wait_for_line(children.start("parent", forever), "pid "))
        assert exists(grandchild)
    await wait_until(lambda: not exists(grandchild), what="the grandchild to be gone")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
async def test_children_are_gone_when_the_parent_dies(tmp_path, number):
    pid = start_and_end_a_parent(tmp_path, number)
    await wait_until(lambda: not exists(pid), what="the child to be gone")


def start_and_end_a_parent(tmp_path, number):
    program = textwrap.dedent(f"""
        import pathlib, sys, time
        from xdserve.demo.processes import Children
        with Children(pathlib.Path(sys.argv[1])) as children:
            print(children.start("sleeper", {SLEEPER!r}).pid, flush=True)
            time.sleep(600)
    """)
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as parent:
        try:
            pid = int(parent.stdout.readline())
            assert exists(pid)
            parent.send_signal(number)
            parent.wait(10)
        finally:
            parent.kill()
    return pid


def test_a_child_does_not_hear_the_terminals_signals(tmp_path):
    with Children(tmp_path) as children:
        child = children.start("sleeper", SLEEPER)
        assert os.getpgid(child.pid) == child.pid != os.getpgid(0)


def test_a_child_that_ended_is_told_with_the_end_of_its_log(tmp_path):
    with Children(tmp_path) as children:
        child = children.start("broken", [sys.executable, "-c", "print('why it ended'); raise SystemExit(3)"])
        child.process.wait(10)
        with pytest.raises(ChildError, match=r"(?s)broken ended with status 3.*why it ended"):
            children.check()


def test_a_command_that_is_not_there_is_told_in_one_line(tmp_path):
    with Children(tmp_path) as children:
        child: Child = children.start("missing", ["/no/such/program"])
        with pytest.raises(ChildError, match="No such file or directory"):
            wait_for_line(child, "listening")
    assert "Traceback" not in child.log.read_text()


def test_a_line_that_does_not_come_is_not_waited_for_for_ever(tmp_path):
    with Children(tmp_path) as children:
        child = children.start("sleeper", SLEEPER)
        with pytest.raises(ChildError, match="did not print 'listening '"):
            wait_for_line(child, "listening ", seconds=0.05)


def test_free_ports_can_be_bound_and_differ():
    ports = free_ports(20)
    assert len(set(ports)) == 20
    for port in ports:
        with socket.create_server(("127.0.0.1", port)):
            pass


def test_a_port_in_use_is_not_free():
    port = free_ports(1)[0]
    with socket.create_server(("127.0.0.1", port)):
        assert port not in free_ports(1000)


def test_a_child_killed_on_purpose_is_not_missed(tmp_path):
    with Children(tmp_path) as children:
        child = children.start("sleeper", [sys.executable, "-c", "import time; time.sleep(60)"])
        children.kill(child)
        assert not child.running
        children.check()
