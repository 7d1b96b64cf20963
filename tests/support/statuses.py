"""A status writer on a real kube-apiserver, with a judge and a leadership that the test gives it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.kube import ApiError
from tests.support.wait import wait_until
from translator.objects.ref import KSERVE, KUBEDL, XDSERVE, Ref
from xdserve.conditions import GATEWAY_PROGRAMMED, Verdict
from xdserve.judge import Judgement
from xdserve.kube.calls import Calls
from xdserve.kube.events import Occurrence, Recorder
from xdserve.kube.patches import path_of
from xdserve.kube.settling import Bounds
from xdserve.kube.status import StatusWriter

OUR_CRDS = Path(__file__).parents[2] / "helm/xdserve/files/crds"

TRUE = Verdict(GATEWAY_PROGRAMMED, "True", "Programmed", "every connected Envoy has acknowledged")
REFUSED = Verdict(GATEWAY_PROGRAMMED, "False", "Rejected", "spec.rules[0]: Envoy gw-1 refuses it: missing )")
ACCEPTED = Verdict("Accepted", "True", "Accepted", "")
LOST = Occurrence("Warning", "Rejected", "told in the last moment")
THEIRS = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}


NEVER_WAITS = Bounds(quiet=0.0, longest=0.0)
"""For tests of something else than how others are let finish: their objects have nobody else who writes to them."""


class Said:
    """A judge that says what the test wants it to."""

    def __init__(self):
        self.judgements = {}
        self.unseen = set()

    def judge(self, refs):
        return [(ref, self.judgements[ref]) for ref in refs if ref in self.judgements]

    def refs(self):
        return list(self.judgements)

    def family(self, ref):
        return {ref}

    def concerned(self, gateway):
        return set(self.judgements)

    def elsewhere(self, target):
        return target in self.unseen


class Leads:
    """A leadership that the test gives and takes."""

    def __init__(self):
        self.held = True
        self._turn = asyncio.Event()

    async def changes(self):
        said = None
        while True:
            if said is not self.held:
                said = self.held
                yield said
            await self._turn.wait()
            self._turn.clear()

    def turn(self, *, held):
        self.held = held
        self._turn.set()


class World:
    """A writer that runs over an apiserver, and what a test does to it."""

    def __init__(self, apiserver, client, namespace, settling=NEVER_WAITS):
        self.apiserver, self.namespace = apiserver, namespace
        self.judge, self.leads = Said(), Leads()
        self.stale = {}
        self.recorder = Recorder(Calls(client), "xdserve-0")
        self.writer = StatusWriter(
            Calls(client), self.judge, self.document, self.leads, self.recorder, settling=settling
        )

    def document(self, ref):
        """What the source gives."""
        return self.stale[ref] if ref in self.stale else self.there(ref)

    def there(self, ref):
        """What the apiserver has; None if nothing."""
        try:
            return self.apiserver.call("GET", path_of(ref))
        except ApiError:
            return None

    def ref(self, kind, name="iris"):
        group = {"InferenceService": KSERVE, "Inference": KUBEDL}.get(kind, XDSERVE)
        return Ref(group, kind, self.namespace, name)

    async def apply(self, *documents):
        await asyncio.to_thread(self.apiserver.apply, *documents, namespace=self.namespace)

    def say(self, ref, *verdicts):
        self.judge.judgements[ref] = Judgement(verdicts)
        self.writer.mark([ref])

    def condition(self, ref, kind=GATEWAY_PROGRAMMED):
        status = (self.there(ref) or {}).get("status", {})
        listed = status.get("conditions", [])
        for entry in status.get("ancestors", []):
            listed = [*listed, *entry["conditions"]]
        return next((one for one in listed if one["type"] == kind), None)

    async def reads(self, ref, reason, kind=GATEWAY_PROGRAMMED):
        def there():
            found = self.condition(ref, kind)
            return found if found and found["reason"] == reason else None

        return await wait_until(there, 10, f"{kind} {reason} of {ref}")

    def events(self):
        found = self.apiserver.call("GET", f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events")["items"]
        return [(one["regarding"]["kind"], one["type"], one["reason"], one["note"]) for one in found]

    def replace_status(self, ref, change):
        """What KServe's controller does: read the object, change its status, and put all of it."""
        document = self.apiserver.call("GET", path_of(ref))
        change(document.setdefault("status", {}))
        return self.apiserver.call("PUT", path_of(ref) + "/status", document)


@asynccontextmanager
async def running(apiserver, namespace, settling=NEVER_WAITS):
    async with await apiserver.client() as client:
        world = World(apiserver, client, namespace, settling)
        tasks = [asyncio.create_task(world.writer.run()), asyncio.create_task(world.recorder.run())]
        try:
            yield world
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


def isvc(name="iris"):
    model = {"modelFormat": {"name": "sklearn"}, "storageUri": "pvc://models/iris"}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name},
        "spec": {"predictor": {"model": model}},
    }


def inference():
    template = {"spec": {"containers": [{"name": "model", "image": "model"}]}}
    predictor = {"name": "a", "replicas": 1, "template": template, "modelVersion": "v1"}
    return {
        "apiVersion": "serving.kubedl.io/v1alpha1",
        "kind": "Inference",
        "metadata": {"name": "iris"},
        "spec": {"framework": "TFServing", "predictors": [predictor]},
    }


def policy(weight=1):
    target = {"group": KSERVE, "kind": "InferenceService", "name": "iris"}
    return {
        "apiVersion": "xdserve.io/v1alpha1",
        "kind": "TrafficPolicy",
        "metadata": {"name": "iris"},
        "spec": {"targetRef": target, "split": [{"backend": "stable", "weight": weight}]},
    }
