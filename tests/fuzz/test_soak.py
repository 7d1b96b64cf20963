"""Connections that come and go leave nothing behind. `make soak` runs 20,000 of them and prints the figures."""

from __future__ import annotations

from tests.fuzz.soak import STEPS, soak

CYCLES = 4_000
STEEPEST = 1_000
"""KB of resident memory in 1,000 cycles: a stream that stays costs 40 KB or more, so one in fifty is told."""
KEPT = ("tasks", "calls", "streams", "gateways", "members")


async def test_connections_that_come_and_go_leave_nothing():
    found = await soak(CYCLES)
    first, last = found.states[0], found.states[-1]
    assert {name: last[name] for name in KEPT} == {name: first[name] for name in KEPT}
    assert (last["calls"], last["streams"], last["gateways"], last["members"]) == (0, 0, 1, 0)
    assert last["opened"] == last["closed"] > CYCLES / 2
    # What a version that an Envoy refused or was lost with leaves behind has a bound, whatever the number of streams.
    assert last["losses"] <= 2 * (STEPS + 1) * 3
    assert last["objects"] - first["objects"] < CYCLES / 10
    cycles = CYCLES + CYCLES // STEPS
    assert found.ends == {"CANCELLED": cycles * 6 / 8, "INVALID_ARGUMENT": cycles / 8, "OK": cycles / 8}
    assert last["refusals"] == {"INVALID_ARGUMENT": cycles / 8}
    assert found.slope < STEEPEST
