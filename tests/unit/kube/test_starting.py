"""Which Deployments are looked at, how often, and what stays said."""

from __future__ import annotations

import pytest

from bootstrap.manifests import labels
from translator.objects.ref import KSERVE, Ref
from xdserve.kube.calls import CallError
from xdserve.kube.starting import FORBIDDEN_SECONDS, Starting

IRIS, WINE = (Ref(KSERVE, "InferenceService", "models", name) for name in ("iris", "wine"))
DENIED = "no pod can be made (FailedCreate): denied"


class Rig:
    """A `Starting` over a cluster in which each target has a Deployment that may make no pods."""

    def __init__(self, release="xdserve"):
        self.held, self.now, self.without, self.broken = True, 0.0, {IRIS, WINE}, True
        self.paths, self.changed = [], []
        self.release, self.away = release, False
        self.starting = Starting(self.call, "xdserve", self, self, lambda: self.now)

    def targets(self):
        return IRIS, WINE

    def lacking(self, target):
        return target in self.without

    def stalled(self, target):
        self.changed.append(target)

    async def call(self, method, path, body=None, **more):
        self.paths.append(path)
        if self.away:
            raise CallError(0, "timed out")
        if path.endswith("/pods"):
            raise CallError(403, "forbidden")
        name = path.rpartition("/")[2]
        target = IRIS if name == "iris-gateway" else WINE
        failure = {"type": "ReplicaFailure", "status": str(self.broken), "reason": "FailedCreate", "message": "denied"}
        metadata = {"name": name, "namespace": "models", "labels": labels(target, self.release)}
        return {"metadata": metadata, "status": {"conditions": [failure]}}

    def said(self):
        return self.starting.words(IRIS), self.starting.words(WINE)


@pytest.fixture
def rig():
    return Rig()


async def test_only_gateways_without_envoys_are_looked_at_and_only_what_is_new_is_told(rig):
    rig.without = {IRIS}
    await rig.starting.look()
    assert rig.said() == (DENIED, None)
    await rig.starting.look()
    assert rig.changed == [IRIS]
    assert not any("wine" in path for path in rig.paths)
    rig.broken = False
    await rig.starting.look()
    assert rig.said() == (None, None)
    assert rig.changed == [IRIS, IRIS]


async def test_of_a_gateway_whose_envoys_have_come_nothing_is_said_any_more(rig):
    await rig.starting.look()
    rig.without = {WINE}
    await rig.starting.look()
    assert rig.said() == (None, DENIED)


async def test_who_does_not_lead_looks_at_nothing(rig):
    await rig.starting.look()
    rig.held = False
    rig.paths.clear()
    await rig.starting.look()
    assert (rig.said(), rig.paths) == ((None, None), [])


async def test_pods_that_may_not_be_looked_at_are_asked_for_once_in_ten_minutes(rig):
    for rig.now in (0, 5, FORBIDDEN_SECONDS - 1):
        await rig.starting.look()
    pods = "/api/v1/namespaces/models/pods"
    assert rig.paths.count(pods) == 1
    rig.now = FORBIDDEN_SECONDS
    await rig.starting.look()
    assert rig.paths.count(pods) == 2


async def test_while_the_apiserver_is_away_what_was_said_stays(rig):
    await rig.starting.look()
    rig.away = True
    await rig.starting.look()
    assert rig.said() == (DENIED, DENIED)


async def test_a_deployment_of_somebody_else_is_not_quoted():
    rig = Rig(release="another")
    await rig.starting.look()
    assert rig.said() == (None, None)
    assert not any(path.endswith("/pods") for path in rig.paths)
