"""ConfigMaps that planners name, got one by one: what answers become, when they are asked for again, what it costs."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from tests.support.recording_feed import RecordingFeed
from tests.support.wait import wait_until
from translator.objects import ConfigMap, Ref
from translator.objects.ref import CORE
from translator.view import OBJECT, Derived, Named, Objects
from xdserve.kube.calls import REQUEST_SECONDS, CallError
from xdserve.kube.config_maps import MOST_OF_NAMESPACE, ConfigMaps, Timing, reference

SOON = Timing(every=0.04, first_retry=0.01, patience=0.2, rate=10_000.0, burst=10_000.0)
HELD = "held until told"


def config_map(name, namespace="models"):
    return Ref(CORE, "ConfigMap", namespace, name)


CA, OTHER = config_map("ca"), config_map("other")


class Apiserver:
    """Has ConfigMaps by path; instead of one an error, or what is waited for."""

    def __init__(self):
        self.found, self.asked, self.at_once, self.most_at_once = {}, [], 0, 0
        self.free = asyncio.Event()
        self.version = 0

    def put(self, ref, **data):
        self.version += 1
        meta = {"name": ref.name, "namespace": ref.namespace, "resourceVersion": str(self.version)}
        self.found[path(ref)] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}

    def refuse(self, ref, status):
        self.found[path(ref)] = CallError(status, "no")

    def hold(self, ref):
        self.found[path(ref)] = HELD

    async def __call__(self, method, where, *, seconds=REQUEST_SECONDS, **_):
        assert method == "GET"
        self.asked.append(where)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self.found.get(where) == HELD:
                await asyncio.wait_for(self.free.wait(), seconds)
        except TimeoutError as error:
            raise CallError(0, "no answer") from error
        finally:
            self.at_once -= 1
        found = self.found.get(where, CallError(404, "not found"))
        if isinstance(found, CallError):
            raise found
        return found


def path(ref):
    return f"/api/v1/namespaces/{ref.namespace}/configmaps/{ref.name}"


class World:
    """An apiserver, planners that name ConfigMaps, and what is fed."""

    def __init__(self, timing=SOON, optional=None):
        self.apiserver, self.feed, self.begun = Apiserver(), Feed(), asyncio.Event()
        self.begun.set()
        self.named = self.feed.named = Named(("ConfigMap",), filter(None, (optional,)))
        self.derived = Derived(Objects(()), self.named)
        self.config_maps = ConfigMaps(
            self.apiserver, self.named, self.feed, self.begun.wait, optional=optional, timing=timing
        )

    def name(self, *refs, reader="a policy"):
        """All that one reader names now."""
        self.derived.record(reader, [(OBJECT, ref) for ref in refs])

    @asynccontextmanager
    async def running(self):
        task = asyncio.create_task(self.config_maps.run())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.wait([task])
        assert task.cancelled(), task.exception()

    async def asked_again(self, ref, times=2):
        """So often from now on."""
        before = self.apiserver.asked.count(path(ref))
        await wait_until(lambda: self.apiserver.asked.count(path(ref)) >= before + times)


class Feed(RecordingFeed):
    """A feed that also answers what is awaited, as the pipeline does."""

    def apply(self, changes):
        super().apply(changes)
        for change in changes:
            self.named.answer(change.object.ref if hasattr(change, "object") else change.ref)

    def data(self, ref):
        return self.objects[ref].data if ref in self.objects else None


@pytest.fixture
async def world():
    async with World().running() as world:
        yield world


async def test_what_is_named_is_got_at_once_and_fed(world):
    world.apiserver.put(CA, **{"ca.crt": "PEM"})
    world.name(CA)
    await wait_until(lambda: world.feed.data(CA) == {"ca.crt": "PEM"})
    assert not world.named.awaited
    assert world.apiserver.asked[0] == "/api/v1/namespaces/models/configmaps/ca"


async def test_a_change_is_fed_and_what_has_not_changed_is_not(world):
    world.apiserver.put(CA, **{"ca.crt": "first"})
    world.name(CA)
    await world.asked_again(CA, 4)
    assert len(world.feed.batches) == 1
    world.apiserver.put(CA, **{"ca.crt": "second"})
    await wait_until(lambda: world.feed.data(CA) == {"ca.crt": "second"})
    assert world.config_maps.reads["found"] >= 4


async def test_one_that_is_made_later_and_deleted_again_is_fed(world):
    world.name(CA)
    await wait_until(lambda: world.feed.batches)
    assert not world.named.awaited
    await world.asked_again(CA)
    assert len(world.feed.batches) == 1
    world.apiserver.put(CA)
    await wait_until(lambda: CA in world.feed.objects)
    world.apiserver.refuse(CA, 404)
    await wait_until(lambda: CA not in world.feed.objects)


async def test_one_that_may_not_be_read_is_broken_and_told_once(world):
    with capture_logs() as logs:
        for ref in (CA, OTHER):
            world.apiserver.refuse(ref, 403)
        world.name(CA, OTHER)
        await wait_until(lambda: world.feed.broken.keys() == {CA, OTHER})
        await world.asked_again(CA)
        assert len(world.feed.batches) == 2
    [line] = logs
    assert (line["log_level"], line["namespace"], line["value"]) == ("warning", "models", "rbac.configMaps")
    world.apiserver.put(CA, **{"ca.crt": "PEM"})
    await wait_until(lambda: world.feed.data(CA) == {"ca.crt": "PEM"})


@pytest.mark.parametrize("status", [0, 429, 500, 503])
async def test_an_apiserver_that_is_away_changes_nothing(world, status):
    world.apiserver.put(CA, **{"ca.crt": "PEM"})
    world.name(CA)
    await wait_until(lambda: world.feed.data(CA))
    world.apiserver.refuse(CA, status)
    await wait_until(lambda: world.config_maps.reads["unanswered"] > 2)
    assert world.feed.data(CA) == {"ca.crt": "PEM"}
    assert len(world.feed.batches) == 1


async def test_one_that_was_never_got_is_given_up_in_time(world):
    world.apiserver.refuse(CA, 503)
    world.name(CA)
    await wait_until(lambda: world.config_maps.reads["unanswered"] > 1)
    assert len(world.named.awaited) == 1
    await wait_until(lambda: CA in world.feed.broken)
    assert not world.named.awaited
    world.apiserver.put(CA)
    await wait_until(lambda: CA in world.feed.objects)


async def test_an_apiserver_that_hangs_is_given_up_too():
    async with World(SOON._replace(at_once=1, request=0.05)).running() as world:
        for ref in (CA, OTHER):
            world.apiserver.hold(ref)
        world.name(CA, OTHER)
        await wait_until(lambda: world.feed.broken.keys() == {CA, OTHER})
        assert world.apiserver.most_at_once == 1


async def test_one_that_waits_for_its_turn_is_not_given_up():
    async with World(SOON._replace(every=60.0, rate=50.0, burst=1.0, patience=0.1)).running() as world:
        many = [config_map("ca", f"team-{number}") for number in range(30)]
        for ref in many:
            world.apiserver.put(ref)
        world.name(*many)
        await wait_until(lambda: not world.named.awaited)
        assert world.feed.objects.keys() == set(many)
        assert not world.feed.broken


async def test_what_nobody_names_any_more_is_forgotten(world):
    world.apiserver.put(CA)
    world.name(CA)
    world.name(CA, reader="another")
    await wait_until(lambda: CA in world.feed.objects)
    world.name()
    await world.asked_again(CA)
    assert CA in world.feed.objects
    world.name(reader="another")
    await wait_until(lambda: CA not in world.feed.objects)
    world.name(OTHER)
    await world.asked_again(OTHER, 3)
    assert world.apiserver.asked[-2:] == [path(OTHER)] * 2


async def test_an_answer_of_what_is_named_no_more_is_not_fed(world):
    world.apiserver.hold(CA)
    world.name(CA)
    await wait_until(lambda: world.apiserver.asked)
    world.name()
    world.apiserver.put(CA)
    world.apiserver.free.set()
    world.name(OTHER)
    await world.asked_again(OTHER)
    assert CA not in world.feed.objects
    world.name(CA)
    await wait_until(lambda: CA in world.feed.objects)


async def test_nothing_is_fed_before_the_others_are():
    """KServe's own is asked for before anybody has named it, so that it is there when they come."""
    kserve = config_map("inferenceservice-config", "kserve")
    world = World(optional=kserve)
    world.begun.clear()
    world.apiserver.put(kserve)
    async with world.running():
        await wait_until(lambda: world.apiserver.asked)
        assert not world.feed.batches
        world.begun.set()
        await wait_until(lambda: kserve in world.feed.objects)
        world.name(kserve)
        assert not world.named.awaited


async def test_that_the_one_of_kserve_is_not_read_is_no_warning():
    kserve = config_map("inferenceservice-config", "kserve")
    world = World(optional=kserve)
    world.apiserver.refuse(kserve, 403)
    with capture_logs() as logs:
        async with world.running():
            await wait_until(lambda: kserve in world.feed.broken)
    [line] = logs
    assert (line["log_level"], line["value"]) == ("info", "rbac.kserveConfig")


async def test_requests_are_bounded_and_namespaces_take_turns():
    async with World(SOON._replace(rate=200.0, burst=20.0, at_once=3)).running() as world:
        many = [config_map(str(number), "many") for number in range(2_000)]
        begun = asyncio.get_running_loop().time()
        world.name(*many)
        world.name(CA, reader="another")
        await wait_until(lambda: path(CA) in world.apiserver.asked)
        assert world.apiserver.asked.index(path(CA)) < 3
        await wait_until(lambda: len(world.apiserver.asked) > 60)
        assert asyncio.get_running_loop().time() - begun > 0.19
        assert world.apiserver.most_at_once <= 3


async def test_a_namespace_cannot_fill_the_memory(world):
    third = "x" * (MOST_OF_NAMESPACE // 3)
    names = [config_map(str(number)) for number in range(5)]
    with capture_logs() as logs:
        for at, ref in enumerate(names):
            world.apiserver.put(ref, text=f"{at}{third}"[: len(third)])
        world.apiserver.put(config_map("ca", "other"), text=third)
        world.name(*names, config_map("ca", "other"))
        await wait_until(lambda: len(world.feed.objects) + len(world.feed.broken) == 6)
    assert len(world.feed.objects) == 4
    assert config_map("ca", "other") in world.feed.objects
    assert len(logs) == 1
    assert third not in str(logs)
    world.apiserver.refuse(names[0], 404)
    await wait_until(lambda: len(world.feed.objects) == 4 and names[0] not in world.feed.objects)


async def test_one_that_grows_too_large_stays_as_it_was_and_counts(world):
    """What is held still counts, or a namespace could hold more by making its ConfigMaps small, large and small."""
    for ref, size in ((CA, 3), (OTHER, 1)):
        world.apiserver.put(ref, text="x" * (MOST_OF_NAMESPACE // 4 * size))
    world.name(CA, OTHER)
    await wait_until(lambda: len(world.feed.objects) == 2)
    world.apiserver.put(CA, text="x" * MOST_OF_NAMESPACE)
    await wait_until(lambda: CA in world.feed.broken)
    third = config_map("third")
    world.apiserver.put(third, text="x" * (MOST_OF_NAMESPACE // 2))
    world.name(CA, OTHER, third)
    await wait_until(lambda: third in world.feed.broken)


async def test_equal_texts_are_held_once(world):
    for ref in (CA, OTHER):
        world.apiserver.put(ref, **{"ca.crt": "".join(["a ", "bundle"])})
    world.name(CA, OTHER)
    await wait_until(lambda: len(world.feed.objects) == 2)
    assert world.feed.data(CA)["ca.crt"] is world.feed.data(OTHER)["ca.crt"]


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"metadata": "no"},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "ca", "namespace": "models"}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": "models"}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ca", "namespace": "models"}, "data": [1]},
    ],
)
async def test_what_is_no_config_map_is_not_readable(world, answer):
    world.apiserver.found[path(CA)] = answer
    world.name(CA)
    await wait_until(lambda: CA in world.feed.broken)
    await world.asked_again(CA)


def test_the_setting_names_one_or_none():
    assert reference("kserve/inferenceservice-config") == config_map("inferenceservice-config", "kserve")
    assert reference("") is None
    assert ConfigMap.KIND == "ConfigMap"


def test_a_change_is_live_within_a_minute():
    timing = Timing()
    assert timing.every + timing.request < 60
