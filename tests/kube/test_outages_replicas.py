"""Two replicas: the leader dies without a word, a thousand objects change at once; each holds what the cluster has."""

from __future__ import annotations

import asyncio

from tests.support.cluster import NAME
from tests.support.kube_objects import endpoint_slice, path, policy
from tests.support.model import Model, serve
from tests.support.outages import scene, target
from tests.support.wait import wait_until
from xdserve.kube.calls import MERGE, Calls
from xdserve.kube.leader import LEASE_SECONDS

SLICES, POLICIES = 900, 100
"""What changes at once. Of policies fewer, since each costs a write of status, which are paced."""

LABEL = "burst"

PODS = "10.89.{}.{}"
"""Where any address is local (`tests.support.netns`)."""

TAKEOVER = LEASE_SECONDS + 10


async def test_a_leader_that_is_killed(apiserver, namespace, tmp_path, network):
    async with scene(apiserver, namespace, tmp_path, network, "xdserve-0", "xdserve-1") as (play, leader, other):
        await play.create(*target(namespace, "goes"))
        await play.same(leader, other)
        assert play.cluster.leader() == "xdserve-0"

        play.children.kill(leader.child)
        # Who leads is no matter for what is served: nobody does for now.
        await play.weigh(v2=100)
        await play.live("v2", seconds=10)
        assert play.cluster.leader() == "xdserve-0"
        await play.delete(*target(namespace, "goes"))
        for name in ("late", "later"):
            await play.create(*target(namespace, name))
        await wait_until(lambda: play.cluster.leader() == "xdserve-1", TAKEOVER, "the other to lead", 0.05)
        await play.cluster.programmed("TrafficPolicy", "InferenceService")
        await wait_until(lambda: play.cluster.get("Deployment", "late-gateway"), 20, "the gateway of what came")

        await leader.started(play.children)
        await play.same(leader, other)
        await play.serve_for({NAME, "late", "later"}, leader, other)
        await play.agree(leader, other)
        assert play.cluster.leader() == "xdserve-1"


async def test_a_thousand_objects_that_change_at_once(apiserver, namespace, tmp_path, network):
    """Most are where requests go to; of the policies the status is to say what became of them."""
    async with (
        serve(Model("v1"), "0.0.0.0", 0) as port,
        scene(apiserver, namespace, tmp_path, network, "xdserve-0", "xdserve-1") as (play, leader, other),
    ):
        await in_bulk(apiserver, "POST", [*slices(namespace, port, 100), *policies(namespace, 1)])
        await play.same(leader, other)
        await wait_until(lambda: endpoints(play, 100), 20, "the endpoints", 0.1)
        assert set(await play.answers()) == {"v1"}

        await in_bulk(apiserver, "PATCH", [*slices(namespace, port, 200), *policies(namespace, 2)])
        await play.same(leader, other)
        await wait_until(lambda: endpoints(play, 200), 20, "the endpoints", 0.1)
        await play.agree(leader, other)
        assert set(await play.answers()) == {"v1"}
        await wait_until(lambda: told(apiserver, namespace) == {(2, 2)}, 40, "the status of all policies", 0.5)

        for one in (next(slices(namespace, port, 200)), next(policies(namespace, 2))):
            await asyncio.to_thread(apiserver.call, "DELETE", f"{path(one)}?labelSelector={LABEL}")
        await play.same(leader, other)
        await wait_until(lambda: endpoints(play, None), 20, "the endpoints", 0.1)
        await play.weigh(v2=100)
        await play.live("v2")


def slices(namespace, port, net):
    """EndpointSlices of one backend, with an address each."""
    name = f"{NAME}-v1-predictor"
    for number in range(SLICES):
        document = endpoint_slice(namespace, name, PODS.format(net + number // 250, 1 + number % 250))
        document["metadata"]["name"] = f"{name}-burst-{number}"
        document["metadata"]["labels"][LABEL] = ""
        document["ports"] = [{"name": name, "port": port}]
        yield document


def policies(namespace, weight):
    """Policies of targets that there are not."""
    for number in range(POLICIES):
        document = policy(namespace, f"nobody-{number}", weight)
        document["metadata"]["labels"] = {LABEL: ""}
        yield document


async def in_bulk(apiserver, method, documents):
    """Write them all, as fast as the apiserver takes them."""
    hands = asyncio.Semaphore(16)
    async with await apiserver.client() as client, asyncio.TaskGroup() as tasks:
        call = Calls(client)
        for document in documents:
            tasks.create_task(write(call, hands, method, document))


async def write(call, hands, method, document):
    one = f"/{document['metadata']['name']}"
    async with hands:
        match method:
            case "POST":
                await call("POST", path(document), document)
            case "PATCH":
                await call("PATCH", path(document) + one, document, content_type=MERGE)


async def endpoints(play, net):
    """Whether Envoy has the addresses of a net, and none of another, for the backend."""
    _, text = await play.pod.envoy.get("/clusters")
    found = {
        address for address in addresses(text) if address.startswith("10.89.") and int(address.split(".")[2]) >= 100
    }
    wanted = {one["endpoints"][0]["addresses"][0] for one in slices("", 0, net)} if net else set()
    return found == wanted


def addresses(text):
    """The addresses of all endpoints in Envoy's list: `cluster::address:port::what::value`."""
    return {parts[1].partition(":")[0] for line in text.splitlines() if len(parts := line.split("::")) == 4}


def told(apiserver, namespace):
    """What the status of each policy is about, and what it should be about: generations."""
    found = apiserver.call("GET", f"{path(policy(namespace, 'any'))}?labelSelector={LABEL}")["items"]
    return {
        (one["metadata"]["generation"], condition.get("observedGeneration"))
        for one in found
        for ancestor in one.get("status", {}).get("ancestors") or [{"conditions": [{}]}]
        for condition in ancestor["conditions"]
    }
