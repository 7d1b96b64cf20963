"""Tokens that are rotated, and a CRD that is deleted and installed again: nothing is lost, and no request fails."""

from __future__ import annotations

import asyncio

from tests.support import chart
from tests.support.cluster import NAME, VARIANTS
from tests.support.kube import ApiError
from tests.support.outages import scene, target
from tests.support.wait import wait_until

POLICIES = chart.CHART / "files/crds/trafficpolicies.yaml"


async def test_the_token_of_xdserve_is_rotated(apiserver, namespace, tmp_path, network):
    """The one before is withdrawn at once, which is worse than its end: requests are refused until it is read again."""
    async with scene(apiserver, namespace, tmp_path, network, "xdserve-0") as (play, replica):
        await play.create(*target(namespace, "goes"))
        await play.same(replica)
        before = play.token.rotate(play.token_file)
        await wait_until(lambda: not play.token.accepted(before), 20, "the former token to be refused", 0.2)

        # All connections are new ones, so that nothing goes on by what was believed once.
        play.to_apiserver.cut()
        await play.weigh(v2=100)
        await play.delete(*target(namespace, "goes"))
        play.to_apiserver.mend()
        await play.live("v2")
        await play.same(replica)
        await play.serve_for({NAME}, replica)
        await play.cluster.programmed("TrafficPolicy", "InferenceService")
        assert "leads no more" not in replica.child.log.read_text()


async def test_the_token_of_a_gateway_is_rotated(apiserver, namespace, tmp_path, network):
    """A kubelet puts another into the file; an xdserve that knows neither asks for it."""
    async with scene(apiserver, namespace, tmp_path, network, "xdserve-0") as (play, replica):
        before = play.pod_token.rotate()
        play.pod.renew(play.pod_token.text)
        await wait_until(lambda: not play.pod_token.accepted(before), 20, "the former token to be refused", 0.2)

        assert await asyncio.to_thread(replica.child.stop) == 0
        await play.weigh(v2=100)
        await replica.started(play.children)
        await play.live("v2")
        await play.cluster.programmed("TrafficPolicy", "InferenceService")
        assert "stream refused" not in replica.child.log.read_text()


async def test_the_crd_of_policies_is_deleted_and_installed_again(lone_apiserver, tmp_path, network):
    """All policies go with it, so that KServe's own shares are served; those that come later are heeded."""
    namespace = lone_apiserver.make_namespace("models")
    async with scene(lone_apiserver, namespace, tmp_path, network, "xdserve-0") as (play, replica):
        await wait_until(lambda: remove_crd(lone_apiserver, "trafficpolicies.xdserve.io"), 20, "the CRD to go")

        async def shared():
            return (await play.answers(60)).keys() == VARIANTS.keys()

        await wait_until(shared, 20, "the shares of KServe")
        assert (await play.held(replica))["TrafficPolicy"] == 0
        await play.create(*target(namespace, "late")[:2])
        await wait_until(lambda: play.cluster.get("Deployment", "late-gateway"), 20, "the others to be served on")

        await asyncio.to_thread(lone_apiserver.install, POLICIES)
        await play.weigh(v2=100)
        await play.live("v2")
        await play.same(replica)
        await play.cluster.programmed("TrafficPolicy", "InferenceService")


async def remove_crd(apiserver, name):
    """Delete a CRD; whether it is gone."""
    path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
    try:
        await asyncio.to_thread(apiserver.call, "DELETE", path)
    except ApiError as error:
        return error.status == 404
    return False
