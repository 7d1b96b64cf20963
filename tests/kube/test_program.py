"""The program as its users meet it: `xdserve serve --source kubernetes` under the chart's ServiceAccount and roles.

On a real kube-apiserver, with a stock Envoy that is started from the very manifests that appear there.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from contextlib import ExitStack
from statistics import median

from tests.support.cluster import (
    NAME,
    NO_FINALIZERS,
    PATHS,
    VARIANTS,
    Replica,
    weighed,
)
from tests.support.processes import Children, free_ports
from tests.support.wait import wait_until
from xdserve.conditions import GATEWAY_PROGRAMMED
from xdserve.kube.calls import MERGE, Calls
from xdserve.kube.parts import KINDS


async def test_objects_become_a_gateway_that_serves_by_weights(cluster, models, tmp_path):
    """From `kubectl apply` to answers, status, and a weight that is live in milliseconds."""
    service = cluster.deploy(models)
    with ExitStack() as stack:
        begun = time.perf_counter()
        await Replica(cluster, "xdserve-0").started(stack.enter_context(Children(tmp_path)))
        started = time.perf_counter() - begun
        await wait_until(lambda: len(cluster.manifests()) == len(KINDS), 20, "the manifests to appear")
        appeared = time.perf_counter() - begun
        await wait_until(lambda: cluster.reason("InferenceService", GATEWAY_PROGRAMMED) == "NoGateway", 15)
        await cluster.gateway(stack)
        await cluster.programmed("InferenceService")
        counts = Counter([await cluster.ask() for _ in range(300)])
        assert counts.keys() == VARIANTS.keys()
        assert 180 < counts["v1"] < 270, counts  # 75 in 100

        cluster.apiserver.apply(weighed(v1=0, v2=100), namespace=cluster.namespace)
        await cluster.programmed("TrafficPolicy", "InferenceService")
        assert {await cluster.ask() for _ in range(20)} == {"v2"}
        kept = [one["type"] for one in cluster.get("InferenceService", NAME)["status"]["conditions"]]
        assert set(kept) == {one["type"] for one in service["status"]["conditions"]} | {GATEWAY_PROGRAMMED}

        took = await edits(cluster)
        sys.stdout.write(
            f"\nready after {started:.1f} s, manifests after {appeared:.1f} s; a patched weight is live after "
            f"{median(took):.1f} ms (median of {len(took)}, worst {max(took):.1f})\n"
        )


async def test_a_replica_that_does_not_lead_serves_reports_and_takes_over(cluster, models, tmp_path):
    cluster.deploy(models)
    with ExitStack() as stack:
        children = stack.enter_context(Children(tmp_path))
        follower = Replica(cluster, "xdserve-1")
        leader = await Replica(cluster, "xdserve-0", entrance=follower.xds).started(children)
        await wait_until(lambda: cluster.leader() == "xdserve-0", 20, "the first to lead")
        await follower.started(children)
        await cluster.gateway(stack)
        await cluster.programmed("InferenceService")
        assert cluster.leader() == "xdserve-0"
        assert await cluster.ask() in VARIANTS

        assert leader.child.stop() == 0
        await wait_until(lambda: cluster.leader() == "xdserve-1", 10, "the other to lead")
        cluster.apiserver.apply(weighed(v2=100), namespace=cluster.namespace)
        await cluster.programmed("TrafficPolicy")
        assert await cluster.ask() == "v2"


async def test_a_gateway_goes_and_comes_with_its_annotation_and_belongs_to_the_newest_target(cluster, models, tmp_path):
    cluster.deploy(models)
    with ExitStack() as stack:
        await Replica(cluster, "xdserve-0").started(stack.enter_context(Children(tmp_path)))
        await wait_until(lambda: len(cluster.manifests()) == len(KINDS), 20, "the manifests to appear")
        theirs = {one["type"] for one in cluster.conditions("InferenceService")} - {GATEWAY_PROGRAMMED}
        for said, number, reason in (("false", 0, None), ("true", len(KINDS), "NoGateway")):
            cluster.annotate(f"xdserve.io/gateway={said}")
            await wait_until(lambda n=number: len(cluster.manifests()) == n, 20, f"{number} manifests")
            await wait_until(
                lambda r=reason: cluster.reason("InferenceService", GATEWAY_PROGRAMMED) == r, 20, f"the reason {reason}"
            )
            assert theirs <= {one["type"] for one in cluster.conditions("InferenceService")}

        path = PATHS["InferenceService"].format(cluster.namespace, NAME)
        cluster.apiserver.kubectl(
            "patch", "isvc", NAME, f"-n={cluster.namespace}", "--type=merge", f"-p={NO_FINALIZERS}"
        )
        cluster.apiserver.call("DELETE", path)
        cluster.deploy(models)
        uid = cluster.apiserver.call("GET", path)["metadata"]["uid"]
        await wait_until(lambda: cluster.owners() == {uid}, 20, "the manifests to be of the new target")


async def test_where_gateways_are_to_be_asked_for_a_service_without_one_lacks_nothing(cluster, models, tmp_path):
    cluster.deploy(models)
    cluster.apiserver.apply(weighed(v2=100), namespace=cluster.namespace)
    theirs = cluster.conditions("InferenceService")
    with ExitStack() as stack:
        replica = Replica(cluster, "xdserve-0", flags=("--provision", "opt-in"))
        await replica.started(stack.enter_context(Children(tmp_path)))
        # The policy says what is so, for its owner asks for something; the service is not to have a gateway.
        await wait_until(
            lambda: cluster.reason("TrafficPolicy", "Programmed") == "NoGateway", 20, "the policy's status"
        )
        assert cluster.conditions("InferenceService") == theirs

        cluster.annotate("xdserve.io/gateway=true")
        await wait_until(lambda: cluster.reason("InferenceService", GATEWAY_PROGRAMMED) == "NoGateway", 20, "a word")
        (said,) = [one for one in cluster.conditions("InferenceService") if one["type"] == GATEWAY_PROGRAMMED]
        assert said["status"] == "Unknown"
        assert said["message"].endswith(f"see the pods of Deployment {NAME}-gateway")


async def test_a_program_that_waits_for_the_apiserver_can_be_told_to_stop(cluster, tmp_path):
    text = cluster.kubeconfig.read_text()
    cluster.kubeconfig.write_text(text.replace(str(cluster.apiserver.port), str(free_ports(1)[0])))
    with Children(tmp_path) as children:
        child = Replica(cluster, "xdserve-0").start(children)
        await wait_until(lambda: "no new certificate" in child.log.read_text(), 20, "it to wait")
        assert child.stop() == 0


async def edits(cluster, number=20):
    """Milliseconds from the apiserver's answer to a patch until the first answer by it, of each edit."""
    took = []
    path = PATHS["TrafficPolicy"].format(cluster.namespace, NAME)
    async with await cluster.apiserver.client() as client:
        call = Calls(client)
        for at in range(number):
            variant = ("v1", "v2")[at % 2]
            other = {"v1": "v2", "v2": "v1"}[variant]
            await call("PATCH", path, {"spec": weighed(**{variant: 100, other: 0})["spec"]}, content_type=MERGE)
            begun = time.perf_counter()
            await wait_until(lambda v=variant: answers(cluster, v), 10, f"{variant} to answer", 0)
            took.append(1000 * (time.perf_counter() - begun))
            await asyncio.sleep(0)
    patch = '{"spec":{"split":[{"backend":"predictor","weight":100}]}}'
    flags = ("--type=merge", f"--namespace={cluster.namespace}", f"--patch={patch}")
    await asyncio.to_thread(cluster.apiserver.kubectl, "patch", "trafficpolicy", NAME, *flags)
    await wait_until(lambda: answers(cluster, "v1"), 10, "v1 to answer")
    return took


async def answers(cluster, variant):
    return await cluster.ask() == variant
