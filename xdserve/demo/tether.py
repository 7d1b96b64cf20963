"""Run as a script between a parent and its child: `tether.py PARENT_PID COMMAND...` becomes COMMAND, tied to PARENT.

The kernel kills a tethered process when its parent dies, however that happened. Done by a program of its own because
code between fork and exec of a process with threads may deadlock; the setting survives the exec.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # from <linux/prctl.h>


def main(arguments: list[str]) -> None:
    """Tie this process to its parent, then become the command; the parent may have died before the tie held."""
    parent, *command = arguments
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(parent):
            sys.exit(1)
    try:
        os.execvp(command[0], command)  # noqa: S606 - becoming the given command is the purpose
    except OSError as error:
        sys.exit(f"{command[0]}: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
