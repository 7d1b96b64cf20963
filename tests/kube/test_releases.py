"""Several releases in one cluster, with a selector each: every word is of the one that sees the target."""

from __future__ import annotations

from contextlib import ExitStack

from tests.support.cluster import NAME, Replica, weighed
from tests.support.documents import isvc, policy
from tests.support.processes import Children
from tests.support.wait import wait_until
from translator.objects.ref import KSERVE
from xdserve.conditions import GATEWAY_PROGRAMMED


def marked(name):
    """An InferenceService of the other release with a policy: what that release saw before, it has judged before."""
    service = isvc(name) | {"metadata": {"name": name, "labels": {"team": "b"}}}
    attached = policy(name) | {"metadata": {"name": name}}
    attached["spec"] = {"targetRef": {"group": KSERVE, "kind": "InferenceService", "name": name}}
    return service, attached


async def speaks(cluster, name):
    """The other release has come so far as to speak of one of its own."""
    cluster.apiserver.apply(*marked(name), namespace=cluster.namespace)
    await wait_until(lambda: cluster.reason("TrafficPolicy", "Accepted", name), 30, f"the status of {name}")


def label(cluster, text):
    cluster.apiserver.kubectl("label", "--overwrite", f"--namespace={cluster.namespace}", "isvc", NAME, text)


def status(cluster):
    found = cluster.get("TrafficPolicy", NAME)
    return found["metadata"]["generation"], found["metadata"]["resourceVersion"], found["status"]


async def test_two_with_a_selector_each_do_not_fight_over_a_policy(cluster, models, tmp_path):
    cluster.deploy(models)
    label(cluster, "team=a")
    cluster.apiserver.apply(weighed(v2=100), namespace=cluster.namespace)
    with ExitStack() as stack:
        children = stack.enter_context(Children(tmp_path))
        await Replica(cluster, "first-0", flags=("--selector", "team=a")).started(children)
        await wait_until(lambda: cluster.reason("TrafficPolicy", "Accepted") == "Accepted", 20, "the first's status")
        await wait_until(
            lambda: cluster.reason("InferenceService", GATEWAY_PROGRAMMED) == "NoGateway", 20, "the first's"
        )
        before = status(cluster)

        cluster.kubeconfig = cluster.apiserver.kubeconfig  # the account of the chart is the first release's
        second = Replica(cluster, "second-0", flags=("--selector", "team=b", "--release", "second"))
        await second.started(children)
        await speaks(cluster, "of-the-second")
        await speaks(cluster, "and-once-more")
        assert status(cluster) == before
        assert ("TrafficPolicy", "Warning", "TargetNotFound") not in cluster.events()

        # Out of everybody's sight it says what was said last, whatever its owner writes.
        label(cluster, "team=c")
        cluster.apiserver.apply(weighed(v1=100, v2=0), namespace=cluster.namespace)
        await speaks(cluster, "later")
        assert (status(cluster)[0], status(cluster)[2]) == (before[0] + 1, before[2])
        assert ("TrafficPolicy", "Warning", "TargetNotFound") not in cluster.events()
