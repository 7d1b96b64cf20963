"""Provisioning where the apiserver is a dictionary: what a real one is not needed for."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import pairwise

import pytest

from bootstrap.address import Address
from bootstrap.manifests import Deploying, Owner
from tests.support.wait import wait_until
from translator.objects.ref import Origin, Ref
from translator.plan import GatewayPlan
from translator.planners.edge import DEFAULT_EDGE
from xdserve.kube import making, provision
from xdserve.kube.calls import CallError
from xdserve.kube.parts import KINDS, LISTED
from xdserve.kube.provision import Provisioner
from xdserve.kube.wanted import Wanted

DEPLOYING = Deploying(xds_address=Address("xdserve.system.svc", 18000), ca="the authorities")


class Apiserver:
    """Takes what is applied, and gives lists in pages of two."""

    def __init__(self):
        self.objects = {}
        self.asked = []
        self.fails = None

    async def __call__(self, method, path, body=None, *, query=None, **rest):
        self.asked.append((method, path))
        if self.fails and method != "GET":
            raise self.fails
        if method == "PATCH":
            self.objects[path] = body | {"metadata": body["metadata"] | {"uid": path}}
        elif method == "DELETE":
            del self.objects[path]
        elif "labelSelector" in (query or {}):
            return self._page(path, int(query.get("continue") or 0))
        elif path not in self.objects:
            raise CallError(404, "not found")
        return self.objects.get(path, {})

    def _page(self, path, at):
        prefix, _, plural = path.rpartition("/")
        found = [one for key, one in self.objects.items() if key.startswith(prefix) and f"/{plural}/" in key]
        more = str(at + 2) if at + 2 < len(found) else ""
        return {"items": found[at : at + 2], "metadata": {"continue": more}}


class Always:
    held = True

    async def changes(self):
        yield True
        await asyncio.Event().wait()


def target(name):
    ref = Ref("serving.kserve.io", "InferenceService", "models", name)
    plan = GatewayPlan(f"models/{name}", "0.0.0.0", 8080, 0, Origin(ref, "metadata.name"), edge=DEFAULT_EDGE)
    return ref, Wanted(Owner(ref, "v1beta1", name), plan)


@pytest.fixture
def apiserver():
    return Apiserver()


@pytest.fixture
async def start(apiserver):
    tasks = []

    def begin(*targets, **more):
        made = Provisioner(apiserver, DEPLOYING, Always(), **{"readable": lambda _: True} | more)
        for ref, wanted in targets:
            made.want(ref, wanted)
        tasks.append(asyncio.create_task(made.run()))
        return made

    yield begin
    for task in tasks:
        assert not task.done()
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_fault_of_ours_harms_one_gateway(apiserver, start, caplog):
    good, (ref, wanted) = target("good"), target("bad")
    made = start((ref, wanted._replace(gateway=replace(wanted.gateway, address="no address"))))
    await wait_until(lambda: made.errors)
    assert made.errors == {ref: "internal error (ValueError)"}
    assert made.failures
    assert (made.wanted, made.applied) == (1, 0)
    made.want(*good)
    await wait_until(lambda: len(apiserver.objects) == len(KINDS))
    await wait_until(lambda: made.applied == 1)
    assert made.wanted == 2
    assert good[0] not in made.errors


async def test_a_gateway_that_nobody_reaches_is_told_and_not_made(apiserver, start):
    """What a ServiceGateway may say on a host of one's own is of no use in a pod."""
    ref, wanted = target("iris")
    made = start((ref, wanted._replace(gateway=replace(wanted.gateway, address="127.0.0.1"))))
    await wait_until(lambda: made.errors)
    assert made.errors[ref].startswith(f"{ref}: spec.address: found 127.0.0.1, allowed others than loopback")
    assert not apiserver.objects
    made.want(ref, wanted)
    await wait_until(lambda: made.applied == 1)
    assert not made.errors


async def test_lists_of_many_pages_are_read_to_their_end(apiserver, start):
    targets = [target(f"iris-{number}") for number in range(5)]
    first = start(*targets)
    await wait_until(lambda: len(apiserver.objects) == 5 * len(KINDS))
    assert first.requests["apply"] == 5 * len(KINDS)
    second = start(*targets)
    await wait_until(lambda: second.requests["list"] == 3 * 4)
    await wait_until(lambda: len(second._maker) == 5 and not len(second._schedule))
    assert set(second.requests) == {"list"}
    assert second.applied == second.wanted == 5


async def test_back_off_grows_and_listens_to_the_apiserver(apiserver, start, monkeypatch):
    waits = []
    monkeypatch.setattr(provision.Schedule, "later", lambda _, thing, at: waits.append(at))
    ref, wanted = target("iris")
    time = [0.0]
    made = start(clock=lambda: time[0])
    await wait_until(lambda: made.requests["list"] == 4)
    apiserver.fails = CallError(429, "slow down", retry_after=100.0)
    for number in range(4):
        made.want(ref, wanted._replace(gateway=replace(wanted.gateway, port=8081 + number)))
        time[0] += 1
        made._woken.set()
        await wait_until(lambda seen=number: len(waits) > seen)
        apiserver.fails = CallError(500, "oh")
    first, *rest = (at - begun for at, begun in zip(waits, (1, 2, 3, 4), strict=True))
    assert first == 100
    assert [expected * 0.8 <= wait <= expected * 1.2 for expected, wait in zip((2, 4, 8), rest, strict=True)]
    assert rest[0] < rest[1] < rest[2]
    assert "Deployment" not in made.errors[ref]


async def test_every_replica_knows_whose_pods_have_an_account(apiserver):
    made = Provisioner(apiserver, DEPLOYING, Always(), readable=lambda _: True)
    ref, wanted = target("iris")
    assert made.gateway_of("models", "iris-gateway") is None
    made.want(ref, wanted)
    assert made.gateway_of("models", "iris-gateway") == "models/iris"
    assert made.gateway_of("others", "iris-gateway") is None
    assert made.gateway_of("models", "iris") is None
    made.want(ref, None)
    assert made.gateway_of("models", "iris-gateway") is None


class Contested(Apiserver):
    """Where another target takes each object over between the look at it and its deletion."""

    def __init__(self):
        super().__init__()
        self.refused = []

    async def __call__(self, method, path, body=None, **rest):
        if method == "DELETE":
            self.refused.append(body["preconditions"])
            self.objects[path]["metadata"]["ownerReferences"][0]["name"] = "another"
            raise CallError(409, "the precondition failed")
        found = await super().__call__(method, path, body, **rest)
        return found | {"metadata": found["metadata"] | {"resourceVersion": "7"}} if "kind" in found else found


async def test_what_another_target_has_taken_over_meanwhile_is_not_deleted():
    apiserver, (ref, wanted) = Contested(), target("iris")
    made = Provisioner(apiserver, DEPLOYING, Always(), readable=lambda _: True)
    made.want(ref, wanted)
    task = asyncio.create_task(made.run())
    await wait_until(lambda: len(apiserver.objects) == len(KINDS))
    made.want(ref, None)
    await wait_until(lambda: len(apiserver.refused) == len(KINDS))
    await wait_until(lambda: made.requests["get"] >= 3 * len(KINDS))
    task.cancel()
    await asyncio.wait([task])
    assert len(apiserver.objects) == len(KINDS)
    assert len(apiserver.refused) == len(KINDS)
    assert {one["resourceVersion"] for one in apiserver.refused} == {"7"}
    assert not made.errors


async def test_what_was_unreadable_is_taken_away_when_it_is_mended(apiserver, start):
    """And not only at the next look."""
    known, settled = set(), []
    ref, wanted = target("iris")
    made = start((ref, wanted), readable=known.__contains__, settled=lambda: bool(settled))
    await wait_until(lambda: made.applied == 1)
    settled.append(True)
    made.want(ref, None)
    await wait_until(lambda: made._kept == {ref})
    made.mended("others")
    assert not len(made._schedule)
    settled.clear()
    known.add(ref)
    made.mended("models")
    await wait_until(lambda: not made._woken.is_set() and (made._schedule.wait(made._clock()) or 0.0) > 0.2)
    assert len(apiserver.objects) == len(KINDS), "not all has been planned"
    settled.append(True)
    await wait_until(lambda: not apiserver.objects)
    assert made._kept == set()


async def test_what_a_former_leader_kept_is_taken_away_when_it_is_mended(apiserver, start):
    known, (ref, wanted) = set(), target("iris")
    start((ref, wanted))
    await wait_until(lambda: len(apiserver.objects) == len(KINDS))
    made = start(readable=known.__contains__)
    await wait_until(lambda: made._kept == {ref})
    known.add(ref)
    made.mended("models")
    await wait_until(lambda: not apiserver.objects)


def path_of(apiserver, kind, name="iris-gateway"):
    return next(path for path, one in apiserver.objects.items() if (one["kind"], path.split("/")[-1]) == (kind, name))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "ConfigMap"])
async def test_what_is_being_deleted_is_made_anew_when_it_is_gone(apiserver, start, monkeypatch, kind):
    """Finalizers may hold it for long; until then it is not as it is wanted, and the target says so."""
    monkeypatch.setattr(making, "AGAIN_SECONDS", 0.05)
    monkeypatch.setattr(provision, "LOOK_SECONDS", 0.2)
    made = start(target("iris"))
    await wait_until(lambda: made.applied == 1)
    path = path_of(apiserver, kind)
    apiserver.objects[path]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    await wait_until(lambda: made.errors)
    assert made.applied == 0
    assert list(made.errors.values()) == [
        f"{kind} models/iris-gateway is being deleted; it is made anew when it is gone"
    ]
    del apiserver.objects[path]
    await wait_until(lambda: path in apiserver.objects)
    await wait_until(lambda: made.applied == 1 and not made.errors)


async def test_a_service_that_is_deleted_or_changed_is_mended_at_once(apiserver, start):
    made = start(target("iris"))
    await wait_until(lambda: made.applied == 1)
    path, asked = path_of(apiserver, "Service"), len(apiserver.asked)
    made.entrance("models", "iris-gateway", made._maker._services[target("iris")[0]])
    made.entrance("models", "somebodys", "7")
    assert not len(made._schedule), "it is as it was applied"
    del apiserver.objects[path]
    made.entrance("models", "iris-gateway", None)
    await wait_until(lambda: path in apiserver.objects)
    assert apiserver.asked[asked:] == [("GET", path), ("PATCH", path)]
    await wait_until(lambda: made.applied == 1)
    apiserver.objects[path]["spec"]["ports"][0]["targetPort"] = 1
    made.entrance("models", "iris-gateway", "8")
    await wait_until(lambda: apiserver.objects[path]["spec"]["ports"][0]["targetPort"] == 8080)


async def test_config_maps_are_read_in_turn(apiserver, start, monkeypatch):
    """Each at one of so many looks, so not all at once."""
    monkeypatch.setattr(making, "LOOKS_A_CONFIG", 5)
    made = start(*(target(f"iris-{number}") for number in range(20)))
    await wait_until(lambda: made.applied == 20)
    asked = [made.requests["get"]]
    for looks in range(made._looks + 1, made._looks + 6):
        made._look_at = 0.0  # the next one is due
        made._woken.set()
        await wait_until(lambda looks=looks: made._looks == looks)
        await wait_until(lambda: made.applied == 20)
        asked.append(made.requests["get"])
    assert asked[-1] - asked[0] == 20
    assert max(later - before for before, later in pairwise(asked)) < 10


class Never:
    held = False

    async def changes(self):
        yield False
        await asyncio.Event().wait()


async def test_who_never_leads_remembers_nothing_of_targets_that_are_gone(apiserver):
    """And so does who provisions nothing, and never runs this."""
    made = Provisioner(apiserver, DEPLOYING, Never(), readable=lambda _: False)
    for number in range(100):
        ref, wanted = target(f"iris-{number}")
        made.want(ref, wanted)
        made.want(ref, None)
    assert not len(made._schedule)
    assert not made._wanted


async def test_of_what_is_listed_only_that_is_held_which_is_compared(apiserver, start):
    start(target("iris"))
    await wait_until(lambda: len(apiserver.objects) == len(KINDS))
    for one in apiserver.objects.values():
        one["metadata"] |= {"managedFields": [{"manager": "xdserve"}], "deletionTimestamp": None, "generation": 1}
        one["status"] = {"conditions": [{"type": "Available"}], "updatedReplicas": 2}
    parts = Provisioner(apiserver, DEPLOYING, Always(), readable=lambda _: True)._parts
    listing = await parts.listed()
    assert sorted(kind for kind, _, _ in listing) == sorted(LISTED)
    assert len(listing) == len(LISTED)
    assert listing.targets == {target("iris")[0]}
    for (kind, _, _), found in listing.items():
        whole = next(one for one in apiserver.objects.values() if one["kind"] == kind)
        assert found["status"] == {"updatedReplicas": 2}
        assert whole["metadata"].keys() - found["metadata"].keys() == {"managedFields"}
        assert {name: found[name] for name in found.keys() & {"spec"}} == {
            name: whole[name] for name in whole.keys() & {"spec"}
        }


class Turns:
    """Leads as it is told."""

    def __init__(self):
        self.held, self._turn = True, asyncio.Event()

    async def changes(self):
        yield True
        while True:
            await self._turn.wait()
            self._turn.clear()
            yield self.held

    def turn(self, *, held):
        self.held = held
        self._turn.set()


async def test_who_leads_no_more_tells_nothing_of_what_fails_then():
    """Another tells what is so; nothing would ever take these words back here."""
    apiserver, leads, told, (ref, wanted) = Apiserver(), Turns(), [], target("iris")
    made = Provisioner(apiserver, DEPLOYING, leads, readable=lambda _: True, told=told.append)
    made.want(ref, wanted)
    answer = asyncio.Event()

    async def late(method, path, body=None, **rest):
        if method != "PATCH":
            return await apiserver(method, path, body, **rest)
        asked.append(path)
        await answer.wait()
        raise CallError(0, "no answer in time")

    asked = []
    made._parts._call = late
    task = asyncio.create_task(made.run())
    await wait_until(lambda: asked)
    leads.turn(held=False)
    await wait_until(lambda: made._look_at is None)
    answer.set()
    await wait_until(lambda: made.failures)
    assert (made.errors, told, made.applied) == ({}, [], 0)
    made._parts._call = apiserver
    leads.turn(held=True)
    await wait_until(lambda: made.applied == 1)
    task.cancel()
    await asyncio.wait([task])


async def test_each_time_it_leads_what_cannot_be_listed_is_made_all_the_same():
    """A role is missing, say: what is wanted is made, though nothing is mended."""
    apiserver, leads = Apiserver(), Turns()
    apiserver._page = lambda *_: (_ for _ in ()).throw(CallError(403, "forbidden"))
    made = Provisioner(apiserver, DEPLOYING, leads, readable=lambda _: True)
    made.want(*target("iris"))
    task = asyncio.create_task(made.run())
    await wait_until(lambda: made.applied == 1)
    leads.turn(held=False)
    await wait_until(lambda: made._look_at is None)
    apiserver.objects.clear()
    leads.turn(held=True)
    await wait_until(lambda: len(apiserver.objects) == len(KINDS))
    task.cancel()
    await asyncio.wait([task])


class Blinks(Always):
    """Leads, but for a moment that is over before anybody is told: a renewal that came late."""

    def __init__(self, moment):
        self._asked, self._moment = 0, moment

    @property
    def held(self):
        self._asked += 1
        return self._asked != self._moment


@pytest.mark.parametrize("moment", range(1, 16))
async def test_a_moment_in_which_nobody_leads_leaves_nothing_undone(moment, monkeypatch):
    monkeypatch.setattr(provision, "UNSETTLED_SECONDS", 0.01)
    apiserver, (ref, wanted) = Apiserver(), target("iris")
    made = Provisioner(apiserver, DEPLOYING, Blinks(moment), readable=lambda _: True)
    made.want(ref, wanted)
    task = asyncio.create_task(made.run())
    await wait_until(lambda: made.applied == 1, seconds=5)
    task.cancel()
    await asyncio.wait([task])
    assert len(apiserver.objects) == len(KINDS)


async def test_an_answer_that_is_no_list_is_no_empty_one(apiserver, start, monkeypatch):
    """A proxy's 200 is not to have all gateways of a cluster read and written anew, each time."""
    monkeypatch.setattr(provision, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(provision, "RETRY_FIRST", 0.01)
    made = start(target("iris"))
    await wait_until(lambda: made.applied == 1)
    apiserver._page = lambda *_: {"metadata": None}
    await wait_until(lambda: made._failed_looks >= 2)
    asked = dict(made.requests)
    await wait_until(lambda: made._failed_looks >= 4)
    assert {what: made.requests[what] for what in ("get", "apply")} == {what: asked[what] for what in ("get", "apply")}
    assert made.applied == 1
