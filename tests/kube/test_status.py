"""Status and Events on a real kube-apiserver: what is said reaches the object, and nobody is fought."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.support.kube import ApiError
from tests.support.statuses import (
    ACCEPTED,
    LOST,
    OUR_CRDS,
    REFUSED,
    THEIRS,
    TRUE,
    World,
    inference,
    isvc,
    policy,
    running,
)
from tests.support.wait import wait_until
from translator.objects.ref import KSERVE
from xdserve.conditions import GATEWAY_PROGRAMMED, Verdict
from xdserve.judge import Judgement, Voice
from xdserve.kube import events
from xdserve.kube import status as statuses
from xdserve.kube.calls import Calls
from xdserve.kube.events import Recorder


@pytest.fixture(scope="module", autouse=True)
def our_crds(apiserver):
    apiserver.install(OUR_CRDS)


@pytest.fixture
async def world(apiserver, namespace):
    async with running(apiserver, namespace) as world:
        await wait_until(lambda: world.writer._leads)
        yield world


async def test_a_policy_gets_its_status_and_nothing_is_written_without_a_change(world):
    await world.apply(policy())
    ref = world.ref("TrafficPolicy")
    programmed = Verdict("Programmed", "True", "Programmed", "all is well")
    world.say(ref, ACCEPTED, programmed)
    found = await world.reads(ref, "Programmed", "Programmed")
    document = world.there(ref)
    (entry,) = document["status"]["ancestors"]
    target = {"group": KSERVE, "kind": "InferenceService", "name": "iris", "namespace": world.namespace}
    assert (entry["ancestorRef"], entry["controllerName"]) == (target, "xdserve.io/controller")
    assert [one["type"] for one in entry["conditions"]] == ["Accepted", "Programmed"]
    assert found["observedGeneration"] == 1
    (owner,) = [one for one in document["metadata"]["managedFields"] if one.get("subresource") == "status"]
    assert (owner["manager"], owner["operation"]) == ("xdserve-status", "Apply")
    await wait_until(lambda: world.writer.writes == 1)
    # The same once more, and then something else: that alone is written.
    world.say(ref, ACCEPTED, programmed)
    other = world.ref("TrafficPolicy", "other")
    await world.apply(policy() | {"metadata": {"name": "other"}})
    world.say(other, ACCEPTED, programmed)
    await world.reads(other, "Programmed", "Programmed")
    assert world.there(ref)["metadata"]["resourceVersion"] == document["metadata"]["resourceVersion"]
    await wait_until(lambda: world.writer.writes == 2)


async def test_the_generation_that_was_observed_is_said_and_its_date_stays(world):
    await world.apply(policy())
    ref = world.ref("TrafficPolicy")
    programmed = Verdict("Programmed", "True", "Programmed", "all is well")
    world.say(ref, programmed)
    before = await world.reads(ref, "Programmed", "Programmed")
    await world.apply(policy(2))
    world.writer.mark([ref])
    await wait_until(lambda: world.condition(ref, "Programmed")["observedGeneration"] == 2)
    assert world.condition(ref, "Programmed")["lastTransitionTime"] == before["lastTransitionTime"]


async def test_a_condition_stands_beside_those_of_the_service_s_own_controller(world):
    await world.apply(isvc())
    ref = world.ref("InferenceService")
    world.replace_status(ref, lambda status: status.update(conditions=[THEIRS], url="http://iris"))
    world.say(ref, TRUE)
    await world.reads(ref, "Programmed")
    status = world.there(ref)["status"]
    assert status["conditions"][0] == THEIRS
    assert status["url"] == "http://iris"
    # Their controller sets its own condition in the list that it read, as Knative's library does, and puts all of it.
    mine = {**THEIRS, "status": "False", "reason": "Down"}
    world.replace_status(ref, lambda status: status.update(conditions=[mine, *status["conditions"][1:]]))
    world.say(ref, REFUSED)
    await world.reads(ref, "Rejected")
    assert world.there(ref)["status"]["conditions"][0] == mine


async def test_a_list_that_changed_since_it_was_seen_is_read_again_and_not_overwritten(world):
    await world.apply(isvc())
    ref = world.ref("InferenceService")
    world.stale[ref] = world.there(ref)
    world.replace_status(ref, lambda status: status.update(conditions=[THEIRS]))
    world.say(ref, TRUE)
    await world.reads(ref, "Programmed")
    assert [one["type"] for one in world.there(ref)["status"]["conditions"]] == ["Ready", GATEWAY_PROGRAMMED]
    # The source goes on to see what was before: what was written is known.
    world.say(ref, TRUE)
    world.say(ref, REFUSED)
    await world.reads(ref, "Rejected")
    assert (world.writer.failures, world.writer.conflicts) == (1, 1)


async def test_who_rewrites_all_conditions_is_not_fought(world, monkeypatch):
    """A second writer that knows no condition but its own: ours comes back, and ever more seldom; theirs never goes."""
    monkeypatch.setattr(statuses, "RETRY_FIRST", 0.05)
    await world.apply(isvc())
    ref = world.ref("InferenceService")
    world.say(ref, TRUE)
    await world.reads(ref, "Programmed")
    for round_ in range(4):
        mine = {**THEIRS, "message": str(round_)}
        world.replace_status(ref, lambda status, mine=mine: status.update(conditions=[mine]))
        world.writer.mark([ref])
        await world.reads(ref, "Programmed")
        assert world.there(ref)["status"]["conditions"][0] == mine
    past = world.writer._past[ref]
    await wait_until(lambda: world.writer.writes == 5)
    assert past.undone == 4
    # A real change does not wait for that.
    world.say(ref, REFUSED)
    await world.reads(ref, "Rejected")


async def test_two_who_write_at_the_same_time_lose_nothing(world, monkeypatch):
    """Two who change the list at the same time, many times over: each change of both is there in the end."""
    monkeypatch.setattr(statuses, "RETRY_FIRST", 0.05)  # who has come too late five times in a row waits 16 times that
    await world.apply(isvc())
    ref = world.ref("InferenceService")

    async def theirs():
        for number in range(30):
            await wait_until(lambda n=number: asyncio.to_thread(_puts, world, ref, n))

    async def ours():
        for number in range(10):
            world.say(ref, Verdict(GATEWAY_PROGRAMMED, "False", "Rejected", str(number)))
            await wait_until(lambda n=number: (world.condition(ref) or {}).get("message") == str(n), 20)

    await asyncio.gather(theirs(), ours())
    found = {one["type"]: one for one in world.there(ref)["status"]["conditions"]}
    assert found["Ready"]["message"] == "29"
    assert found[GATEWAY_PROGRAMMED]["message"] == "9"


def _puts(world, ref, number):
    """Whether their write was taken, or ours had come between."""
    try:
        return world.replace_status(ref, lambda status: _set(status, number))
    except ApiError as error:
        if error.status != 409:
            raise
        return None


def _set(status, number):
    others = [one for one in status.get("conditions", []) if one["type"] != "Ready"]
    status["conditions"] = [{**THEIRS, "message": str(number)}, *others]


async def test_kubedl_s_object_has_no_place_for_it_so_events_tell(world):
    await world.apply(inference())
    ref = world.ref("Inference")
    world.say(ref, TRUE)
    await wait_until(lambda: world.writer._without == {"Inference"})
    assert "conditions" not in world.there(ref).get("status", {})
    world.say(ref, REFUSED)
    await wait_until(lambda: ("Inference", "Warning", "Rejected", REFUSED.message) in world.events())
    assert world.writer.writes == 1


async def test_a_refusal_and_its_end_are_events_that_kubectl_describe_shows(world):
    await world.apply(isvc())
    ref = world.ref("InferenceService")
    world.say(ref, TRUE)
    await world.reads(ref, "Programmed")
    assert world.events() == []
    world.say(ref, REFUSED)
    await world.reads(ref, "Rejected")
    world.say(ref, TRUE)
    await world.reads(ref, "Programmed")
    await wait_until(lambda: len(world.events()) == 2)
    await wait_until(lambda: world.recorder.written == 2)
    described = await asyncio.to_thread(
        world.apiserver.kubectl, "describe", "inferenceservice", "iris", "-n", world.namespace
    )
    lines = described[described.index("Events:") :].splitlines()
    assert any("Warning" in line and "Rejected" in line and "missing )" in line for line in lines)
    assert any("Normal" in line and "Programmed" in line for line in lines)


NOT_READY = Verdict("ResolvedRefs", "False", "BackendNotReady", "spec.backends[0]: no endpoint of it is ready")


async def test_backends_that_start_are_a_condition_at_once_and_a_warning_when_that_lasts(world, monkeypatch):
    monkeypatch.setattr(events, "LASTING_SECONDS", 2.0)
    await world.apply(policy())
    ref = world.ref("TrafficPolicy")
    world.say(ref, NOT_READY)
    await world.reads(ref, "BackendNotReady", "ResolvedRefs")
    world.say(ref, NOT_READY._replace(status="True", reason="ResolvedRefs", message=""))
    await world.reads(ref, "ResolvedRefs", "ResolvedRefs")
    assert (world.events(), world.recorder.written) == ([], 0)
    # Nothing but time makes the writer look again.
    world.say(ref, NOT_READY)
    await wait_until(lambda: world.recorder.written == 1)
    assert world.events() == [("TrafficPolicy", "Warning", "BackendNotReady", NOT_READY.message)]


async def test_of_what_wants_no_gateway_no_event_tells(world):
    await world.apply(isvc())
    ref = world.ref("InferenceService")
    world.judge.judgements[ref] = Judgement((REFUSED,), muted=True)
    world.writer.mark([ref])
    await world.reads(ref, "Rejected")
    other = world.ref("InferenceService", "other")
    await world.apply(isvc("other"))
    world.say(other, REFUSED)
    # In order: what is told of the first would have been written before.
    path = f"/apis/events.k8s.io/v1/namespaces/{world.namespace}/events"
    told = await wait_until(lambda: [one["regarding"]["name"] for one in world.apiserver.call("GET", path)["items"]])
    assert told == ["other"]


async def test_the_same_again_is_the_same_event_also_under_another_leader(apiserver, namespace):
    path = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"

    def counts():
        found = [one for one in apiserver.call("GET", path)["items"] if one["type"] == "Warning"]
        return [one.get("series", {}).get("count", 1) for one in found]

    for count in (1, 2):
        async with running(apiserver, namespace) as world:
            await wait_until(lambda world=world: world.writer._leads)
            await world.apply(isvc())
            ref = world.ref("InferenceService")
            world.say(ref, TRUE)
            await world.reads(ref, "Programmed")
            world.say(ref, REFUSED)
            await wait_until(lambda count=count: counts() == [count])


async def test_a_new_leader_does_not_repeat_what_the_status_says(apiserver, namespace):
    for _ in range(2):
        async with running(apiserver, namespace) as world:
            await world.apply(isvc())
            ref = world.ref("InferenceService")
            await wait_until(lambda world=world: world.writer._leads)
            world.say(ref, REFUSED)
            await world.reads(ref, "Rejected")
            await wait_until(lambda world=world: len(world.events()) == 1)
            await wait_until(lambda world=world, ref=ref: ref in world.writer._past)
    (event,) = apiserver.call("GET", f"/apis/events.k8s.io/v1/namespaces/{namespace}/events")["items"]
    assert "series" not in event


async def test_who_does_not_lead_writes_nothing(world):
    await world.apply(isvc())
    ref = world.ref("InferenceService")
    world.leads.turn(held=False)
    await wait_until(lambda: not world.writer._leads)
    world.say(ref, TRUE)
    assert not len(world.writer._schedule)
    world.leads.turn(held=True)
    await world.reads(ref, "Programmed")


async def test_envoys_that_roll_do_not_make_a_gateway_flap(world, monkeypatch):
    monkeypatch.setitem(statuses.PATIENCE, "NoGateway", 60.0)
    await world.apply(isvc())
    ref = world.ref("InferenceService")
    world.say(ref, TRUE)
    await world.reads(ref, "Programmed")
    gone = Verdict(GATEWAY_PROGRAMMED, "Unknown", "NoGateway", "no Envoy is connected")
    world.say(ref, gone)
    await wait_until(lambda: world.writer._past[ref].doubted is not None)
    world.say(ref, TRUE)
    await wait_until(lambda: world.writer._past[ref].doubted is None)
    assert world.writer.writes == 1
    monkeypatch.setitem(statuses.PATIENCE, "NoGateway", 0.2)
    world.say(ref, gone)
    await world.reads(ref, "NoGateway")


async def test_while_replicas_of_two_versions_are_compared_what_was_said_holds(world, monkeypatch):
    monkeypatch.setitem(statuses.PATIENCE, "Pending", 0.2)
    monkeypatch.setattr(statuses, "ROLLING_SECONDS", 60.0)
    await world.apply(isvc())
    ref = world.ref("InferenceService")
    world.say(ref, TRUE)
    before = await world.reads(ref, "Programmed")
    waits = Verdict(GATEWAY_PROGRAMMED, "Unknown", "Pending", "not every Envoy has acknowledged its configuration yet")
    world.judge.judgements[ref] = Judgement((waits,), rolling=True)
    world.writer.mark([ref])
    await wait_until(lambda: world.writer._past[ref].doubted is not None)
    other = world.ref("InferenceService", "other")
    await world.apply(isvc("other"))
    world.say(other, waits)
    await world.reads(other, "Pending")
    assert world.condition(ref) == before
    # Not for ever: replicas that stay of two versions are no roll.
    monkeypatch.setattr(statuses, "ROLLING_SECONDS", 0.2)
    world.writer.mark([ref])
    await world.reads(ref, "Pending")


async def test_what_was_said_of_a_gateway_is_taken_back_when_none_is_wanted_any_more(world):
    await world.apply(isvc())
    ref = world.ref("InferenceService")
    world.replace_status(ref, lambda status: status.update(conditions=[THEIRS]))
    world.say(ref, REFUSED)
    await world.reads(ref, "Rejected")
    world.judge.judgements[ref] = Judgement((), voice=Voice.SILENT)
    world.writer.mark([ref])
    await wait_until(lambda: world.condition(ref) is None)
    assert world.there(ref)["status"]["conditions"] == [THEIRS]
    # And once: from now on nothing is to be taken back, until something is said again.
    world.writer.mark([ref])
    world.say(world.ref("InferenceService", "none"), TRUE)
    await wait_until(lambda: not len(world.writer._schedule))
    assert world.writer.writes == 2
    world.say(ref, TRUE)
    await world.reads(ref, "Programmed")


async def test_what_goes_on_is_said_where_something_was_said_before(world):
    await world.apply(isvc())
    ref = world.ref("InferenceService")
    gone = Verdict(GATEWAY_PROGRAMMED, "Unknown", "NoGateway", "no Envoy is connected")
    world.judge.judgements[ref] = Judgement((gone,), voice=Voice.GOES_ON)
    world.writer.mark([ref])
    await wait_until(lambda: ref in world.writer._past)
    await wait_until(lambda: not len(world.writer._schedule))
    assert (world.writer.writes, world.condition(ref)) == (0, None)
    world.say(ref, REFUSED)
    await world.reads(ref, "Rejected")
    world.judge.judgements[ref] = Judgement((gone,), voice=Voice.GOES_ON)
    world.writer.mark([ref])
    await world.reads(ref, "NoGateway")


async def test_a_policy_whose_target_another_release_may_see_is_left_as_it_is(world):
    await world.apply(policy())
    ref = world.ref("TrafficPolicy")
    world.say(ref, ACCEPTED)
    await world.reads(ref, "Accepted", "Accepted")
    world.judge.unseen.add(world.ref("InferenceService"))
    missing = Verdict("Accepted", "False", "TargetNotFound", "spec.targetRef: InferenceService models/iris not found")
    world.say(ref, missing)
    await wait_until(lambda: ref not in world.writer._past)
    assert world.condition(ref, "Accepted")["reason"] == "Accepted"
    world.judge.unseen.clear()
    world.say(ref, missing)
    await world.reads(ref, "TargetNotFound", "Accepted")


async def test_events_that_wait_when_leadership_ends_are_not_written(apiserver, namespace):
    async with await apiserver.client() as client:
        world = World(apiserver, client, namespace)
        writing = asyncio.create_task(world.writer.run())
        await wait_until(lambda: world.writer._leads)
        await world.apply(isvc(), isvc("other"))
        for name in ("iris", "other"):
            world.say(world.ref("InferenceService", name), REFUSED)
            await world.reads(world.ref("InferenceService", name), "Rejected")
        assert len(world.recorder._waiting) == 2
        world.leads.turn(held=False)
        await wait_until(lambda: not world.recorder._waiting)
        # Also what is told in the moment before the end is known.
        recorder = Recorder(Calls(client), "xdserve-0", held=lambda: world.leads.held)
        recorder.tell(world.ref("InferenceService"), world.there(world.ref("InferenceService")), LOST)
        await _stopped(writing)
        recording = asyncio.create_task(recorder.run())
        await wait_until(lambda: not recorder._waiting)
        await _stopped(recording)
        assert (world.events(), recorder.written) == ([], 0)


async def _stopped(task):
    task.cancel()
    await asyncio.wait([task])


async def test_an_object_that_is_gone_is_forgotten(world):
    await world.apply(isvc())
    ref = world.ref("InferenceService")
    world.stale[ref] = world.there(ref)
    await asyncio.to_thread(world.apiserver.kubectl, "delete", "inferenceservice", "iris", "-n", world.namespace)
    world.say(ref, TRUE)
    await wait_until(lambda: world.writer.failures and ref not in world.writer._past)
    assert not len(world.writer._schedule)


async def test_without_permission_it_is_said_once_and_tried_seldom(apiserver, namespace, capsys):
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "nobody"}}
    await asyncio.to_thread(apiserver.apply, account, isvc(), isvc("other"), namespace=namespace)
    token = apiserver.account_token(namespace, "nobody")
    path = apiserver.write_kubeconfig(apiserver.folder / f"{namespace}.kubeconfig", token=token)
    async with await apiserver.client(path) as client:
        world = World(apiserver, client, namespace)
        task = asyncio.create_task(world.writer.run())
        await wait_until(lambda: world.writer._leads)
        both = [world.ref("InferenceService"), world.ref("InferenceService", "other")]
        for ref in both:
            world.say(ref, TRUE)
        await wait_until(lambda: world.writer.failures == 2)
        assert world.writer.conflicts == 0
        for ref in both:
            world.say(ref, TRUE)
        await wait_until(lambda: all(world.writer._past[ref].told.verdicts for ref in both))
        assert world.writer._schedule.wait(0) > 100
        assert len(world.writer._told) == 1
        task.cancel()
        await asyncio.wait([task])


def test_the_crds_say_why_it_is_done_like_this(apiserver):
    """KServe's list has no keys, so who applies an entry owns all of it; KubeDL's status has no conditions."""

    def status(name):
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
        version = apiserver.call("GET", path)["spec"]["versions"][0]
        return version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]

    listed = status("inferenceservices.serving.kserve.io")["conditions"]
    assert "x-kubernetes-list-type" not in listed
    assert "observedGeneration" not in json.dumps(listed)
    assert "conditions" not in status("inferences.serving.kubedl.io")


async def test_what_changes_while_the_apiserver_is_gone_is_written_when_it_is_back(lone_apiserver, monkeypatch):
    monkeypatch.setattr(statuses, "RETRY_LONGEST", 1.0)
    apiserver = lone_apiserver
    await asyncio.to_thread(apiserver.install, OUR_CRDS)
    await asyncio.to_thread(apiserver.apply, policy())
    async with running(apiserver, "default") as world:
        ref = world.ref("TrafficPolicy")
        await wait_until(lambda: world.writer._leads)
        world.stale[ref] = world.there(ref)
        await asyncio.to_thread(apiserver.kill)
        world.say(ref, ACCEPTED)
        await wait_until(lambda: world.writer.failures)
        await apiserver.started()
        await world.reads(ref, "Accepted", "Accepted")
