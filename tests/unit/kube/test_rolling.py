"""A new image for many gateways, where the apiserver is a dictionary and the pods are the test's."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from bootstrap.manifests import CA_FILE
from tests.support.wait import wait_until
from tests.unit.kube.test_provision import DEPLOYING, Always, Apiserver, target
from xdserve.kube import provision, rolling
from xdserve.kube.provision import Provisioner
from xdserve.kube.rolls import ROLL_SECONDS, ROLLING

TARGETS = [target(f"iris-{number}") for number in range(ROLLING + 5)]
BROKEN = replace(DEPLOYING, image="broken")


class Controlled(Apiserver):
    """With a Deployment controller whose pods come if they can; those of a broken image cannot."""

    async def __call__(self, method, path, body=None, **rest):
        before = self.objects.get(path)
        found = await super().__call__(method, path, body, **rest)
        if method == "PATCH" and body["kind"] == "Deployment":
            generation = 1 + (before["metadata"]["generation"] if before else 0)
            found["metadata"]["generation"] = generation
            found["status"] = {"observedGeneration": generation, "replicas": 3, "updatedReplicas": 1}
            self.pods_come(path)
        return found

    def pods_come(self, path):
        found = self.objects[path]
        if found["spec"]["template"]["spec"]["containers"][0]["image"] != "broken":
            found["status"] |= {"replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}

    def images(self, kind="Deployment"):
        found = [one for one in self.objects.values() if one["kind"] == kind]
        return [one["spec"]["template"]["spec"]["containers"][0]["image"] for one in found]

    def configs(self):
        return [one["data"] for one in self.objects.values() if one["kind"] == "ConfigMap"]


@pytest.fixture
def clock(monkeypatch):
    """The time: real, and what the test adds."""
    ahead = [0.0]
    monkeypatch.setattr(rolling, "AGAIN_SECONDS", 0.05)
    monkeypatch.setattr(provision, "PER_SECOND", 10_000.0)

    def now():
        return asyncio.get_running_loop().time() + ahead[0]

    now.ahead = ahead
    return now


@pytest.fixture
def apiserver():
    return Controlled()


@asynccontextmanager
async def provisioning(apiserver, clock, deploying=DEPLOYING, targets=TARGETS):
    made = Provisioner(apiserver, deploying, Always(), readable=lambda _: True, clock=clock)
    for ref, wanted in targets:
        made.want(ref, wanted)
    task = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        assert not task.done(), task.exception()
        task.cancel()
        await asyncio.wait([task])


async def all_made(made):
    await wait_until(lambda: made.applied == made.wanted)


async def test_a_good_image_reaches_all(apiserver, clock):
    async with provisioning(apiserver, clock) as made:
        await all_made(made)
        made.deploy(replace(DEPLOYING, image="better"))
        await wait_until(lambda: set(apiserver.images()) == {"better"})
        await all_made(made)
        assert not made.errors


async def test_a_broken_image_reaches_few_and_says_so(apiserver, clock):
    """Whoever leads next keeps to that; new gateways are made, authorities are told, and another image reaches all."""
    async with provisioning(apiserver, clock) as made:
        await all_made(made)
        made.deploy(BROKEN)
        await wait_until(lambda: apiserver.images().count("broken") == ROLLING)
        await wait_until(lambda: made.applied == ROLLING)
        assert not made.errors, "they wait for their turn"
        clock.ahead[0] += ROLL_SECONDS
        await wait_until(lambda: len(made.errors) == 5)
        assert "do not become available" in next(iter(made.errors.values()))
        made.want(*target("new"))
        await wait_until(lambda: apiserver.images().count("broken") == ROLLING + 1)

    async with provisioning(apiserver, clock, BROKEN, [*TARGETS, target("new")]) as made:
        made.deploy(replace(BROKEN, ca="newer"))
        await wait_until(lambda: all(data[CA_FILE] == "newer" for data in apiserver.configs()))
        await wait_until(lambda: made.applied == ROLLING + 1)
        assert apiserver.images().count("broken") == ROLLING + 1
        clock.ahead[0] += ROLL_SECONDS
        await wait_until(lambda: len(made.errors) == 5)
        made.deploy(replace(DEPLOYING, ca="newer"))
        await wait_until(lambda: "broken" not in apiserver.images())
        await all_made(made)
        await wait_until(lambda: not made.errors)


async def test_who_waits_keeps_its_bootstrap(apiserver, clock):
    """An old pod may start again meanwhile."""
    async with provisioning(apiserver, clock) as made:
        await all_made(made)
        elsewhere = replace(BROKEN, xds_address=DEPLOYING.xds_address._replace(port=19_000), ca="newer")
        made.deploy(elsewhere)
        await wait_until(lambda: all(data[CA_FILE] == "newer" for data in apiserver.configs()))
        await wait_until(lambda: made.applied == ROLLING)
        changed = [data for data in apiserver.configs() if "19000" in str(data)]
        assert len(changed) == ROLLING
        assert len([data for data in apiserver.configs() if "18000" in str(data)]) == 5


async def test_leadership_that_ends_while_pods_are_looked_at_is_no_fault():
    """A fault would be told of the gateway, by who does not speak for it any more."""
    ref, deployment = TARGETS[0][0], {"status": {"replicas": 3, "updatedReplicas": 1}}

    class Slow:
        async def get(self, _):
            roller.clear()
            return deployment

    again = []
    roller = rolling.Roller(Slow(), DEPLOYING, lambda: 0.0, lambda *asked: again.append(asked), lambda _: None)
    roller.resume(ref, deployment)
    again.clear()
    await roller.follow(ref, deployment)
    assert not again
