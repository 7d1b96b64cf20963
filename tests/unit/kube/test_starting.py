"""Which Deployments are quoted, what that costs, and what stays said."""

from __future__ import annotations

import pytest

from bootstrap.manifests import labels
from translator.objects.ref import KSERVE, Ref
from xdserve.kube.calls import CallError
from xdserve.kube.starting import Starting

IRIS, WINE = (Ref(KSERVE, "InferenceService", "models", name) for name in ("iris", "wine"))
DENIED = "no pod can be made (FailedCreate): denied"
CRASHES = "container envoy ends again and again (CrashLoopBackOff), the last time with exit code 1"
WAITING = {"waiting": {"reason": "CrashLoopBackOff"}}
CRASHING = {"name": "envoy", "state": WAITING, "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}}}


class Rig:
    """A `Starting` over a cluster in which each target has a Deployment; `asked` are the requests."""

    def __init__(self, *, pods=False):
        self.held, self.without, self.denied, self.release = True, {IRIS, WINE}, True, "xdserve"
        self.asked, self.changed, self.refuses = [], [], False
        self.starting = Starting(self.call, self, self, "xdserve", pods=pods)

    def targets(self):
        return IRIS, WINE

    def lacking(self, target):
        return target in self.without

    def stalled(self, target):
        self.changed.append(target)

    async def call(self, method, path, body=None, *, query):
        self.asked.append((path, query["labelSelector"].rpartition("=")[2]))
        if self.refuses:
            raise CallError(403, "forbidden")
        return {"items": [{"status": {"containerStatuses": [CRASHING]}}]}

    def listed(self):
        return {("Deployment", "models", f"{one.name}-gateway"): self.deployment(one) for one in (IRIS, WINE)}

    def deployment(self, target):
        failure = {"type": "ReplicaFailure", "status": str(self.denied), "reason": "FailedCreate", "message": "denied"}
        metadata = {"name": f"{target.name}-gateway", "namespace": "models", "labels": labels(target, self.release)}
        return {"kind": "Deployment", "metadata": metadata, "status": {"conditions": [failure]}}

    async def look(self):
        await self.starting.look(self.listed())
        return self.starting.words(IRIS), self.starting.words(WINE)


@pytest.fixture
def rig():
    return Rig()


async def test_a_gateway_without_envoys_is_explained_at_no_cost_and_told_when_that_is_new(rig):
    rig.without = {IRIS}
    assert await rig.look() == await rig.look() == (DENIED, None)
    assert (rig.changed, rig.asked) == ([IRIS], [])
    rig.denied = False
    assert await rig.look() == (None, None)
    assert rig.changed == [IRIS, IRIS]


async def test_of_a_gateway_whose_envoys_have_come_nothing_is_said_any_more(rig):
    await rig.look()
    rig.without = {WINE}
    assert await rig.look() == (None, DENIED)


async def test_who_does_not_lead_says_nothing(rig):
    await rig.look()
    rig.held = False
    assert await rig.look() == (None, None)


async def test_pods_are_looked_at_where_that_is_wanted_and_no_envoy_is_there():
    rig = Rig(pods=True)
    rig.denied, rig.without = False, {IRIS}
    assert await rig.look() == (CRASHES, None)
    assert rig.asked == [("/api/v1/namespaces/models/pods", "iris-gateway")]


async def test_without_the_right_to_pods_the_deployment_has_the_word():
    rig = Rig(pods=True)
    rig.refuses = True
    assert await rig.look() == (DENIED, DENIED)


async def test_a_deployment_of_somebody_else_is_not_quoted(rig):
    rig.release = "another"
    assert await rig.look() == (None, None)


async def test_a_deployment_that_is_not_there_says_nothing(rig):
    await rig.starting.look({})
    assert rig.starting.words(IRIS) is None
