"""What outlives the server: put back before gateways are published, and taken out as Envoys answer."""

from __future__ import annotations

import pytest

from tests.stream.rig import GATEWAY
from tests.support.model_envoy import make
from tests.support.wait import wait_until as until
from xds.memory import Memory, Refusal
from xds.types import ResourceType

CLUSTER = ResourceType.CLUSTER
LATER = "models/later"


def memory(good, refused):
    """Of one cluster: this was good, and this was refused."""
    refusal = Refusal(version=refused.version, code=3, message="no", node="envoy")
    return Memory(type=CLUSTER, name=good.name, good=(good,), refused=(refusal,))


async def test_what_was_refused_before_a_restart_is_not_served_after_it(rig):
    good, bad = make(CLUSTER, "c", 1), make(CLUSTER, "c", 2)
    rig.server.restore(LATER, [memory(good, bad)])
    rig.server.publish(LATER, [bad])
    client = rig.client()
    assert await client.take(CLUSTER, gateway=LATER) == {"c": good.version}
    [rejection] = rig.server.rejections(LATER)
    assert rejection.served == good.version
    assert rig.record.rejected[LATER] == (rejection,)


async def test_an_envoy_that_comes_and_goes_before_costs_no_memory(rig):
    good, bad = make(CLUSTER, "c", 1), make(CLUSTER, "c", 2)
    rig.server.restore(LATER, [memory(good, bad)])
    client = rig.client()
    await client.say(CLUSTER, gateway=LATER)
    await until(lambda: rig.server.connected(LATER))
    client.call.cancel()
    await until(lambda: not rig.server.connected(LATER))
    rig.server.publish(LATER, [bad])
    assert rig.server.scope(LATER).get(CLUSTER, "c") == good


async def test_not_after_it_was_published(rig):
    with pytest.raises(ValueError, match="has been published"):
        rig.server.restore(GATEWAY, [])


async def test_what_changed_is_given_once(rig):
    rig.server.publish("models/other", [make(CLUSTER, "c")])
    assert rig.server.changed_scopes().keys() == {GATEWAY, "models/other"}
    assert rig.server.changed_scopes() == {}
    await rig.connected()
    await until(lambda: rig.server.scope(GATEWAY).has_been_good(CLUSTER, "a", make(CLUSTER, "a").version))
    [(name, scope)] = rig.server.changed_scopes().items()
    assert name == GATEWAY
    assert scope.drain() == [(CLUSTER, "a")]


async def test_a_gateway_that_is_no_more_has_no_scope(rig):
    rig.server.publish("models/other", [make(CLUSTER, "c")])
    rig.server.forget("models/other")
    assert rig.server.changed_scopes() == {GATEWAY: rig.server.scope(GATEWAY), "models/other": None}
