"""A minute of requests while everything changes and the servers die by turns: nobody who asks notices.

The seed is printed; XDSERVE_CHAOS_SEED repeats the choices of a run (what meets what stays the machine's), and
XDSERVE_CHAOS_SECONDS makes it longer.
"""

from __future__ import annotations

import os
import sys
import time

import pytest

from tests.chaos.chaos import Chaos
from tests.chaos.report import figures, wrongs


async def test_nobody_notices(tmp_path, capsys):
    seed = int(os.environ.get("XDSERVE_CHAOS_SEED") or time.time())
    seconds = float(os.environ.get("XDSERVE_CHAOS_SECONDS", "60"))
    with capsys.disabled():
        sys.stdout.write(f"\nXDSERVE_CHAOS_SEED={seed}\n")
    async with Chaos(tmp_path, seed, concurrency=1 + seed % 2) as chaos:
        await chaos.run(seconds)
    with capsys.disabled():
        sys.stdout.write("\n".join(figures(chaos)) + "\n")
    if found := wrongs(chaos):
        pytest.fail("\n".join(found), pytrace=False)
