"""Two writers on the status of InferenceServices, KServe's controller and ours: it never has to begin anew."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import defaultdict
from contextlib import asynccontextmanager
from random import Random

import pytest

from tests.support.kserve_controller import Controller, pods_start, service_ref
from tests.support.statuses import THEIRS, TRUE, Leads, Said, isvc
from tests.support.wait import wait_until
from xdserve.conditions import GATEWAY_PROGRAMMED, Verdict
from xdserve.judge import Judgement
from xdserve.kube.calls import MERGE, Calls
from xdserve.kube.client import connect
from xdserve.kube.events import Recorder
from xdserve.kube.patches import path_of
from xdserve.kube.resources import TARGETS
from xdserve.kube.settling import BOUNDS, Bounds
from xdserve.kube.source import KubernetesSource
from xdserve.kube.status import StatusWriter

DEPLOYMENTS = 100
_NO_ENVOY = Verdict(GATEWAY_PROGRAMMED, "Unknown", "NoGateway", "no Envoy is connected")
_PENDING = Verdict(GATEWAY_PROGRAMMED, "Unknown", "Pending", "not every Envoy has acknowledged")


class Ours:
    """The writer as the program has it: over a source that watches."""

    def __init__(self, client, namespace, settling):
        self.judge, self.versions = Said(), defaultdict(set)
        call = self._noted(Calls(client))
        self.source = KubernetesSource(client, self, [namespace], resources=TARGETS[:1], restated=self._restated)
        recorder = Recorder(call, "xdserve-0")
        self.writer = StatusWriter(call, self.judge, self.source.document, Leads(), recorder, settling=settling)

    def _noted(self, call):
        """Note the versions that writes make."""

        async def noted(method, path, *rest, **more):
            answer = await call(method, path, *rest, **more)
            if method == "PATCH":
                self.versions[answer["metadata"]["name"]].add(int(answer["metadata"]["resourceVersion"]))
            return answer

        return noted

    def harmed(self, conflicts):
        """Of the conflicts of another those that a write of ours has made."""
        return [one for one in conflicts if any(one.read < ours <= one.there for ours in self.versions[one.name])]

    def apply(self, changes):
        self.writer.mark([change.object.ref for change in changes])

    def _restated(self, ref):
        self.writer.mark([ref])

    def say(self, ref, verdict):
        self.judge.judgements[ref] = Judgement((verdict,))
        self.writer.mark([ref])


@asynccontextmanager
async def both(apiserver, namespace, settling=BOUNDS):
    """Both writers, running."""
    async with await connect(apiserver.kubeconfig) as client, await connect(apiserver.kubeconfig) as another:
        ours, theirs = Ours(client, namespace, settling), Controller(another, Calls(another), namespace)
        tasks = [asyncio.create_task(run()) for run in (ours.source.run, ours.writer.run, theirs.run)]
        try:
            await wait_until(lambda: ours.source.synced.is_set() and ours.writer._leads)
            yield ours, theirs, Calls(client)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


async def deploy(call, ours, theirs, ref, random):
    """A user creates a service, its gateway comes up, and half of the users edit it meanwhile; until all is said."""
    document = isvc(ref.name)
    await call("POST", path_of(ref).rpartition("/")[0], document)
    ours.say(ref, _NO_ENVOY)
    for verdict in (_PENDING, TRUE):
        await pods_start(random)
        ours.say(ref, verdict)
    if random.random() < 0.5:
        await call("PATCH", path_of(ref), {"spec": {"predictor": {"minReplicas": 2}}}, content_type=MERGE)
    await wait_until(lambda: said_by_both(theirs, ours, ref), 60, f"both to have written {ref}", 0.1)


def said_by_both(theirs, ours, ref):
    document = ours.source.document(ref)
    found = {one["type"]: one["status"] for one in document["status"].get("conditions", ())} if document else {}
    return theirs.done(ref) and found.get("Ready") == found.get(GATEWAY_PROGRAMMED) == "True"


async def test_kserve_s_controller_meets_no_conflict_in_a_hundred_deployments(apiserver, namespace):
    """But where it began anew when its status was settled and ours was on its way: nobody could know."""
    random = Random(7)
    begun = time.perf_counter()
    async with both(apiserver, namespace) as (ours, theirs, call):
        refs = [service_ref(namespace, f"iris-{number}") for number in range(DEPLOYMENTS)]
        await asyncio.gather(*(deploy(call, ours, theirs, ref, random) for ref in refs))
    harmed = ours.harmed(theirs.conflicts)
    conflicts = [one for one in harmed if not one.began_first]
    sys.stdout.write(
        f"\n{DEPLOYMENTS} deployments in {time.perf_counter() - begun:.0f} s: {theirs.writes} writes of KServe's, "
        f"{len(theirs.conflicts) - len(harmed)} conflicts with users, {len(conflicts)} with us, and "
        f"{len(harmed) - len(conflicts)} where it began first; {ours.writer.writes} writes of ours\n"
    )
    assert conflicts == []
    assert len(harmed) <= DEPLOYMENTS // 10
    assert theirs.writes >= 3 * DEPLOYMENTS
    assert ours.writer.writes >= DEPLOYMENTS


@pytest.mark.parametrize("status", [{}, {"conditions": [THEIRS]}])
async def test_without_a_controller_the_condition_comes_when_the_longest_time_is_over(apiserver, namespace, status):
    longest = 3.0
    async with await connect(apiserver.kubeconfig) as client:
        ours, ref = Ours(client, namespace, Bounds(quiet=0.5, longest=longest)), service_ref(namespace, "iris")
        await asyncio.to_thread(apiserver.apply, isvc(), namespace=namespace)
        await Calls(client)("PATCH", path_of(ref) + "/status", {"status": status}, content_type=MERGE)
        tasks = [asyncio.create_task(run()) for run in (ours.source.run, ours.writer.run)]
        begun = time.monotonic()
        ours.say(ref, TRUE)
        await wait_until(lambda: ours.writer.writes, longest + 5)
        assert longest <= time.monotonic() - begun < longest + 4
        there = apiserver.call("GET", path_of(ref))["status"]["conditions"]
        assert GATEWAY_PROGRAMMED in {one["type"] for one in there}
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
