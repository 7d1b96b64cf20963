"""Outages of the cluster, met by the whole program: nothing is lost, nothing stale is left, and no request fails.

Each test has a gateway of a stock Envoy under a steady load, from before the outage until all is well again. What is
written during an outage is written while xdserve hears nothing, so that it must find out afterwards.
"""

from __future__ import annotations

import asyncio
import time

from tests.support.cluster import NAME
from tests.support.outages import scene, target, troubles
from tests.support.wait import wait_until
from xdserve.kube.leader import RENEW_SECONDS
from xdserve.kube.resources import RESOURCES

AWAY = 30.0
"""Seconds: every watch breaks at once, the leader gives up after `RENEW_SECONDS`, and the Lease is over for long."""


async def changed_unheard(play):
    """One target goes, two come (so that numbers tell it), and the one under load is to be served by another."""
    await play.weigh(v2=100)
    await play.delete(*target(play.namespace, "goes"))
    for name in ("late", "later"):
        await play.create(*target(play.namespace, name))


async def all_found(play, *replicas):
    """What `changed_unheard` did has been found out: edits are live, and what is gone is gone."""
    await play.live("v2")
    await play.same(*replicas)
    await play.serve_for({NAME, "stays", "late", "later"}, *replicas)
    await wait_until(play.cluster.leader, 20, "one to lead")
    await play.weigh(v1=100)
    await play.live("v1")
    await play.cluster.programmed("TrafficPolicy", "InferenceService")
    for replica in replicas:
        await wait_until(lambda one=replica: well(one), 20, "all to be well again", 0.1)


async def well(replica):
    return not await troubles(replica)


async def prepared(play):
    for name in ("stays", "goes"):
        await play.create(*target(play.namespace, name))


async def test_an_apiserver_that_is_killed_and_started_again(lone_apiserver, tmp_path, network):
    namespace = lone_apiserver.make_namespace("models")
    async with scene(lone_apiserver, namespace, tmp_path, network, "xdserve-0") as (play, replica):
        await prepared(play)
        await play.same(replica)
        lone_apiserver.kill()
        killed = time.monotonic()
        play.to_apiserver.cut()  # so that nothing is heard of what is written first
        await wait_until(lambda: "leads no more" in replica.child.log.read_text(), RENEW_SECONDS + 3, "it to resign")
        await wait_until(lambda: time.monotonic() > killed + AWAY, AWAY, every=0.2)
        assert await replica.ready()  # what was read goes on being served
        assert await troubles(replica)
        assert set(await play.answers()) == {"v1"}
        await lone_apiserver.started()
        await changed_unheard(play)
        play.to_apiserver.mend()
        await all_found(play, replica)


async def test_an_apiserver_that_has_forgotten_what_happened(lone_apiserver, tmp_path, network):
    """410 on every watch: etcd is compacted meanwhile, and the apiserver's own cache is new."""
    namespace = lone_apiserver.make_namespace("models")
    async with scene(lone_apiserver, namespace, tmp_path, network, "xdserve-0") as (play, replica):
        await prepared(play)
        await play.same(replica)
        play.to_apiserver.cut()
        await changed_unheard(play)
        lone_apiserver.compact()
        await asyncio.to_thread(lone_apiserver.stop)
        await lone_apiserver.started()
        play.to_apiserver.mend()
        await wait_until(lambda: listed(lone_apiserver) >= {one.plural for one in RESOURCES}, 30, "new lists of all")
        await all_found(play, replica)


def listed(apiserver):
    """What this apiserver has been asked to list since it was started."""
    lines = apiserver.call("GET", "/metrics", accept="*/*").splitlines()
    asked = (line for line in lines if line.startswith("apiserver_request_total{") and 'verb="LIST"' in line)
    return {line.partition('resource="')[2].partition('"')[0] for line in asked}
