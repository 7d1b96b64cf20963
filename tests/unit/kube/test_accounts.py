"""Whose pods are a gateway's: those with a ServiceAccount that xdserve has made."""

from __future__ import annotations

import pytest

from bootstrap.manifests import labels
from translator.objects.ref import Ref
from xds.call import Limits
from xds.identity import Denied
from xdserve.kube.accounts import BAD_SECONDS, GOOD_SECONDS, OwnAccounts
from xdserve.kube.calls import REQUEST_SECONDS, CallError
from xdserve.kube.tokens import REVIEW_SECONDS

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

    async def __call__(self, method, path, *, seconds=REQUEST_SECONDS, **_):
        self.waits = seconds
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


@pytest.mark.parametrize("error", [CallError(0, "away"), CallError(500, "oh")])
async def test_who_was_kept_out_stays_out_while_the_apiserver_is_away(error):
    """Its token is good to its end, so nothing else would keep it from the gateway's configuration."""
    world = World(THEIRS)
    with pytest.raises(Denied):
        await world.accounts.identify(None)
    world.time += BAD_SECONDS + 1
    world.found = error
    with pytest.raises(Denied):
        await world.accounts.identify(None)
    world.found = OURS
    assert await world.accounts.identify(None) == {"models/iris"}


async def test_a_silent_apiserver_keeps_no_envoy_out():
    """Its token's review and this together end before the peer is turned away for that it takes too long."""
    world = World(CallError(0, "no answer in time"))
    assert await world.accounts.identify(None) == {"models/iris"}
    assert REVIEW_SECONDS + world.waits < Limits().identify - 1
