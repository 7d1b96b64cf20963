"""xdserve that is started while the apiserver is away: it waits, alive and not ready, and gateways go on serving."""

from __future__ import annotations

import asyncio
import json

from tests.support import chart
from tests.support.outages import get, scene
from tests.support.wait import wait_until

RETRIES = 4


async def test_a_start_without_an_apiserver_waits_for_it(apiserver, namespace, tmp_path, network):
    """However long it takes: by the chart's probes the container is never restarted."""
    async with scene(apiserver, namespace, tmp_path, network, "xdserve-0") as (play, replica):
        play.to_apiserver.cut()
        assert await asyncio.to_thread(replica.child.stop) == 0
        before = len(replica.child.log.read_text())
        replica.start(play.children)

        await wait_until(lambda: answers(replica, "startupProbe"), 20, "the startup probe to succeed")
        refused = play.to_apiserver.refused
        await wait_until(lambda: play.to_apiserver.refused > refused + RETRIES, 20, "more tries")
        assert await answers(replica, "livenessProbe")
        assert not await answers(replica, "readinessProbe")
        status, body = await get(replica, "/readyz")
        assert (status, json.loads(body)["status"]) == (503, "waiting for a certificate for the xDS port")
        # Told once, however often it is tried and in whatever words the network says no.
        said = replica.child.log.read_text()[before:]
        assert said.count("waiting for a certificate") == 1
        assert said.count("no new certificate") == 1  # with the cause
        assert set(await play.answers()) == {"v1"}  # by what the gateway has

        await play.weigh(v2=100)
        play.to_apiserver.mend()
        await wait_until(lambda: answers(replica, "readinessProbe"), 20, "xdserve to be ready")
        await play.live("v2")
        await play.same(replica)


async def answers(replica, probe):
    """Whether a probe of the chart's container succeeds."""
    (deployment,) = [one for one in chart.rendered() if one["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    action = container[probe]["httpGet"]
    assert action["port"] == "admin"
    status, _ = await get(replica, action["path"])
    return 200 <= status < 400
