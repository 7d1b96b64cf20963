"""The steps in which processes are killed: an Envoy, and xdserve itself."""

from __future__ import annotations

import time

from xdserve.demo.play import Play
from xdserve.demo.report import Step
from xdserve.demo.waiting import until

_SETTLED = 500
_BACK_SECONDS = 20.0


async def envoy_killed(play: Play, name: str) -> Step:
    """An Envoy is killed and started again: it serves soon, and the other gateways notice nothing."""
    mnist, others = play.stage.mnist, play.traffic.failed
    async with mnist.traffic(connections=4).running() as traffic:
        before = traffic.count()
        play.reporter.begin("the Envoy of mnist killed and started again", {"v1": 0.9, "v2": 0.1}, before)
        await traffic.until(before, requests=_SETTLED)
        seconds = await mnist.restart()
        down, after = traffic.failed, traffic.count()
        await traffic.until(after, requests=_SETTLED, seconds=play.seconds)
        failed = traffic.failed - down
    lost = failed + play.traffic.failed - others
    milliseconds = round(seconds * 1000)
    return Step(
        name=name, expected="serves again; then 0 failed, and 0 failed at iris all the while",
        seen=f"serves {milliseconds} ms after its start ({down} lost until then); then {failed} failed, "
        f"{play.traffic.failed - others} at iris",
        held=lost == 0 and before.total >= _SETTLED, requests=after.total, failed=lost, wanted={},
        counts=dict(after.variants), figures={"serves_after_ms": milliseconds, "failed_while_down": down},
    )  # fmt: skip


async def xdserve_killed(play: Play, name: str) -> Step:
    """The control plane is killed and started again: Envoys serve on, and get what changes afterwards alone."""
    stage, failed = play.stage, play.traffic.failed
    async with stage.mnist.traffic(connections=2).running() as mnist:
        tally = play.traffic.count()
        play.reporter.begin("xdserve killed and started again", play.wanted, tally)
        stage.server.kill()
        await play.traffic.until(tally, requests=_SETTLED, seconds=min(1.0, play.seconds))
        started = time.perf_counter()
        stage.server.again()
        await stage.server.wait_ready()
        await until(lambda: _all_connected(play), "all Envoys to come back", _BACK_SECONDS)
        back = round((time.perf_counter() - started) * 1000)
        changed = await _edit(play)
        await play.traffic.until(play.traffic.count(), requests=_SETTLED, seconds=play.seconds)
        resent = await _sent(play) - changed  # now, when whatever an Envoy asked for has long been sent
        lost = play.traffic.failed - failed + mnist.failed
    return Step(
        name=name, expected="0 failed; 0 resources resent; then an edit sends 1",
        seen=f"{lost} failed; {resent} resent to {len(stage.gateways)} Envoys, back after {back} ms; "
        f"an edit sent {changed}",
        held=(lost, resent, changed) == (0, 0, 1), requests=tally.total, failed=lost, wanted={},
        counts=dict(tally.variants), figures={"resent": resent, "sent_by_an_edit": changed, "back_after_ms": back},
    )  # fmt: skip


async def _all_connected(play: Play) -> bool:
    metrics = await play.stage.server.metrics()
    return metrics["xdserve_connected_envoys"] == len(play.stage.gateways)


async def _sent(play: Play) -> int:
    return int((await play.stage.server.metrics())["xdserve_resources_sent_total"])


async def _edit(play: Play) -> int:
    """Move the split of iris; the resources that this sent to all Envoys."""
    before = await _sent(play)
    share = round(play.wanted["stable"] * 100)
    await play.move(share - 5, 105 - share)
    return await _sent(play) - before
