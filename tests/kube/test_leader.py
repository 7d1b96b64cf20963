"""Leader election on a real kube-apiserver: one leads, another takes over, and never two at once."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from tests.support.wait import wait_until
from xdserve.kube.calls import Calls
from xdserve.kube.leader import Leadership, Terms

TERMS = Terms(lease=15.0, renew=10.0, retry=0.15)
"""Longer than anything here takes on a busy machine: no Lease ends that a test does not let end."""

SHORT = Terms(lease=2.0, renew=1.5, retry=0.15)
"""Of a Lease whose end is waited for."""


class Replica:
    """A candidate that runs: when it led, by a clock that all share."""

    def __init__(self, client, namespace, identity, terms):
        self.leadership = Leadership(Calls(client), namespace, identity, terms=terms)
        self.said = []
        self._tasks = [asyncio.create_task(self.leadership.run()), asyncio.create_task(self._listen())]

    async def _listen(self):
        async for held in self.leadership.changes():
            self.said.append(held)

    @property
    def held(self):
        return self.leadership.held

    def kill(self):
        """As a crash: nothing is released."""
        self.leadership._election.resign()
        for task in self._tasks:
            task.cancel()

    async def stop(self):
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def replicas(apiserver, namespace, *identities, terms=TERMS):
    async with await apiserver.client() as client:
        made = [Replica(client, namespace, identity, terms) for identity in identities]
        try:
            yield made
        finally:
            for one in made:
                await one.stop()


def lease(apiserver, namespace):
    return apiserver.call("GET", f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/xdserve")["spec"]


def holder(apiserver, namespace):
    return lease(apiserver, namespace).get("holderIdentity", "")


async def test_one_of_two_leads_and_the_other_follows_when_it_stops(apiserver, namespace):
    async with replicas(apiserver, namespace, "a", "b") as (a, b):
        await wait_until(lambda: a.held or b.held)
        first, second = (a, b) if a.held else (b, a)
        await wait_until(lambda: first.said[-1:] == [True])
        assert not second.held
        began = time.monotonic()
        await first.stop()
        assert not first.held
        await wait_until(lambda: second.held)
        assert time.monotonic() - began < TERMS.lease, "a released Lease was waited for"
        await wait_until(lambda: second.said[-1:] == [True])
    assert holder(apiserver, namespace) == ""


async def test_a_killed_leader_is_followed_after_the_lease_and_not_before(apiserver, namespace):
    async with replicas(apiserver, namespace, "a", terms=SHORT) as (a,):
        await wait_until(lambda: a.held)
        async with replicas(apiserver, namespace, "b", terms=SHORT) as (b,):
            await wait_until(lambda: b.said == [False])
            a.kill()
            renewed = datetime.fromisoformat(lease(apiserver, namespace)["renewTime"])
            await wait_until(lambda: b.held)
            assert datetime.now(UTC) - renewed > timedelta(seconds=SHORT.lease)
            assert holder(apiserver, namespace) == "b"


async def test_a_leader_whose_lease_another_has_written_leads_no_more(apiserver, namespace):
    async with replicas(apiserver, namespace, "a") as (a,):
        await wait_until(lambda: a.held)
        patch = '{"spec": {"holderIdentity": "c", "leaseDurationSeconds": 600}}'
        arguments = ["patch", "lease", "xdserve", "-n", namespace, "--type=merge", "-p", patch]
        await asyncio.to_thread(apiserver.kubectl, *arguments)
        await wait_until(lambda: not a.held)
        await wait_until(lambda: a.said[-1] is False)
        assert a.leadership.turns == 2
        assert holder(apiserver, namespace) == "c"


async def test_a_lease_that_is_deleted_is_made_again(apiserver, namespace):
    async with replicas(apiserver, namespace, "a") as (a,):
        await wait_until(lambda: a.held)
        await asyncio.to_thread(apiserver.kubectl, "delete", "lease", "xdserve", "-n", namespace)

        def there():
            found = apiserver.call("GET", f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases")["items"]
            return [one["spec"]["holderIdentity"] for one in found] == ["a"]

        await wait_until(lambda: asyncio.to_thread(there))
        await wait_until(lambda: a.held)


async def test_no_one_leads_while_the_apiserver_is_gone_and_one_does_afterwards(lone_apiserver):
    apiserver, terms = lone_apiserver, Terms(lease=6.0, renew=1.5, retry=0.15)
    async with replicas(apiserver, "default", "a", "b", terms=terms) as both:
        await wait_until(lambda: any(one.held for one in both))
        await asyncio.to_thread(apiserver.kill)
        gone = time.monotonic()
        await wait_until(lambda: not any(one.held for one in both))
        assert time.monotonic() - gone < terms.lease, "another could have led by then"
        await wait_until(lambda: time.monotonic() - gone > 2 * terms.renew)
        assert not any(one.held for one in both)
        await apiserver.started()
        await wait_until(lambda: any(one.held for one in both), 20)
        assert sum(one.held for one in both) == 1
