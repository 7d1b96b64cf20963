"""Whose pods are a gateway's: those with a ServiceAccount that xdserve has made."""

from __future__ import annotations

import pytest

from bootstrap.manifests import labels
from translator.objects.ref import Ref
from xds.identity import Denied
from xdserve.kube.accounts import BAD_SECONDS, GOOD_SECONDS, OwnAccounts
from xdserve.kube.calls import CallError

TARGET = Ref("serving.kserve.io", "InferenceService", "models", "iris")
PATH = "/api/v1/namespaces/models/serviceaccounts/iris-gateway"
OURS, THEIRS = labels(TARGET, "xdserve"), {"app.kubernetes.io/managed-by": "somebody"}


class World:
    """An apiserver that has one ServiceAccount, a clock, and tokens that are all good."""

    def __init__(self, found):
        self.found, self.asked, self.time = found, [], 0.0
        self.accounts = OwnAccounts(self, self, {"models/iris": TARGET}.get, "xdserve", lambda: self.time)

    async def identify(self, _):
        return frozenset({"models/iris"})

    async def __call__(self, method, path, **_):
        self.asked.append((method, path))
        if isinstance(self.found, Exception):
            raise self.found
        return {"metadata": {"labels": self.found}}


@pytest.mark.parametrize(
    "found", [OURS, CallError(0, "away"), CallError(403, "no right to read it"), CallError(500, "oh")]
)
async def test_who_is_ours_or_may_be_is_let_in(found):
    world = World(found)
    assert await world.accounts.identify(None) == {"models/iris"}
    assert world.asked == [("GET", PATH)]


@pytest.mark.parametrize("found", [THEIRS, None, labels(TARGET, "another-release"), CallError(404, "not found")])
async def test_who_is_somebody_elses_is_not(found):
    with pytest.raises(Denied, match="models/iris-gateway is not xdserve's"):
        await World(found).accounts.identify(None)


async def test_what_was_seen_is_believed_for_a_while():
    world = World(OURS)
    for _ in range(3):
        await world.accounts.identify(None)
    assert len(world.asked) == 1
    world.time, world.found = GOOD_SECONDS, THEIRS
    for _ in range(3):
        with pytest.raises(Denied):
            await world.accounts.identify(None)
    assert len(world.asked) == 2
    world.time, world.found = GOOD_SECONDS + BAD_SECONDS, OURS
    assert await world.accounts.identify(None)
