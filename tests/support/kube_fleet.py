"""Many InferenceServices on an apiserver, as KServe's controller writes them, and what xdserve asks of that apiserver.

`Audit` is to be made before the apiserver: its `flags` make that log each request of xdserve's account.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter

import aiohttp
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.support import chart
from tests.support.cluster import NAME, SAMPLE
from tests.support.kube_objects import path
from translator.planners.options import KSERVE_CONFIG_MAP
from xdserve.kube.calls import MERGE, Calls

AT_ONCE = 16


OWN = "own "
"""Before resources of xdserve's own namespace, as its Lease and its Secret, and of KServe's."""

KSERVE = KSERVE_CONFIG_MAP.partition("/")[0]


class Audit:
    """The requests of xdserve's account, as the apiserver logs them."""

    def __init__(self, folder):
        self._log, policy = folder / "audit.log", folder / "audit-policy.json"
        user = f"system:serviceaccount:{chart.NAMESPACE}:{chart.NAME}"
        rules = [{"level": "Metadata", "users": [user]}, {"level": "None"}]
        kind = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"]}
        policy.write_text(json.dumps(kind | {"rules": rules}))
        self.flags = (f"--audit-policy-file={policy}", f"--audit-log-path={self._log}")
        self._read = 0
        self._seen = set()
        self._made = Counter()

    def made(self):
        """How often each (verb, resource) has been asked for; a watch counts when it begins."""
        text = self._log.read_bytes() if self._log.exists() else b""
        end = text.rfind(b"\n") + 1
        for line in text[self._read : end].splitlines():
            event = json.loads(line)
            if event["auditID"] not in self._seen and "objectRef" in event:
                self._seen.add(event["auditID"])
                about = event["objectRef"]
                whose = OWN if about.get("namespace") in {chart.NAMESPACE, KSERVE} else ""
                what = "/".join(filter(None, (about["resource"], about.get("subresource"))))
                self._made[event["verb"], whose + what] += 1
        self._read = end
        return self._made.copy()


async def deploy(apiserver, namespace, count):
    """Make `iris-0`, `iris-1` and so on, each a copy of the sample under its own name."""
    documents = json.dumps(list(yaml.safe_load_all(SAMPLE.read_text())))
    turn = asyncio.Semaphore(AT_ONCE)

    async def make(call, number):
        copy = documents.replace(NAME, f"iris-{number}").replace('"default"', f'"{namespace}"')
        async with turn:
            for document in json.loads(copy):
                await _make(call, document)

    async with await apiserver.client() as client, asyncio.TaskGroup() as tasks:
        for number in range(count):
            tasks.create_task(make(Calls(client), number))


async def _make(call, document):
    for name in ("clusterIP", "clusterIPs"):
        document.get("spec", {}).pop(name, None)
    await call("POST", path(document), document)
    if document["kind"] == "InferenceService":
        where = f"{path(document)}/{document['metadata']['name']}/status"
        await call("PATCH", where, {"status": document["status"]}, content_type=MERGE)


async def figures(admin):
    """The metrics of the xdserve at an admin port: name, or name and values of its labels -> value."""
    async with (
        aiohttp.ClientSession(trust_env=False) as session,
        session.get(f"http://127.0.0.1:{admin}/metrics") as response,
    ):
        text = await response.text()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {
        (sample.name, *sample.labels.values()) if sample.labels else sample.name: sample.value for sample in samples
    }
