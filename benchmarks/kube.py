"""A thousand InferenceServices on a real kube-apiserver: the start, the gateways, one edit, and a start after that."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.measure import Figure, quantile, resident
from tests.support.cluster import NAME, PATHS, Cluster, Replica, model_servers, weighed
from tests.support.kube import Apiserver
from tests.support.kube_binaries import BinaryError, kube_binaries
from tests.support.kube_fleet import OWN, Audit, deploy
from tests.support.kube_fleet import figures as figures_of
from tests.support.kube_seed import seed
from tests.support.netns import Network, NetworkError, allow_networks
from tests.support.processes import Children
from tests.support.wait import wait_until
from xdserve.kube.calls import MERGE, Calls

SERVICES = 1_000
EDITS = 20
NAMESPACE = "models"
WRITES = {"create", "update", "patch", "delete"}


def figures() -> list[Figure]:
    """All of the group; none, with a word, where the apiserver cannot be had or no network be made."""
    allow_networks()
    try:
        kube_binaries()
        with TemporaryDirectory() as name, Network() as network:
            return _measured(Path(name), network)
    except (BinaryError, NetworkError) as error:
        print(f"left out: {error}", file=sys.stderr)
        return []


def _measured(folder, network):
    ours, theirs = folder / "xdserve", folder / "cluster"
    ours.mkdir()
    theirs.mkdir()
    audit = Audit(theirs)
    with Apiserver(seed(theirs), *audit.flags) as apiserver:
        apiserver.start()
        apiserver.make_namespace(NAMESPACE)
        cluster = Cluster(apiserver, NAMESPACE, ours, network)
        return asyncio.run(_Run(cluster, audit).figures())


class _Run:
    def __init__(self, cluster, audit):
        self._cluster, self._audit = cluster, audit
        self._replica = Replica(cluster, "xdserve-0")
        self._count = SERVICES
        self._before = Counter()

    async def figures(self):
        with ExitStack() as stack:
            children = stack.enter_context(Children(self._cluster.folder))
            async with model_servers(self._cluster.network) as models:
                await self._deploy(models)
                return [
                    *await self._start(children, "start"),
                    *await self._provisioned(),
                    *await self._edits(stack),
                    *await self._again(children),
                ]

    async def _deploy(self, models):
        self._cluster.deploy(models)  # one of them has an Envoy and models that answer
        begun = time.perf_counter()
        await deploy(self._cluster.apiserver, NAMESPACE, self._count - 1)
        _tell(f"{self._count} services made", begun)
        self._asked()

    async def _start(self, children, what):
        begun = time.perf_counter()
        await self._replica.started(children)
        seconds = time.perf_counter() - begun
        memory, worked = resident(self._replica.child.pid), _worked(self._replica.child.pid)
        made = self._asked()
        return [
            Figure(f"{what} -> ready", seconds, "s", note=f"{self._count:,} services"),
            Figure(f"{what}: work until ready", worked, "s CPU"),
            Figure(f"{what}: requests until ready", made.total(), "", note=_said(made)),
            Figure(f"{what}: memory when ready", memory / 1e6, "MB"),
        ]

    async def _provisioned(self):
        begun, worked = time.perf_counter(), _worked(self._replica.child.pid)
        await wait_until(self._all_applied, 600, "all gateways to be provisioned", 0.5)
        seconds = time.perf_counter() - begun
        await wait_until(self._all_told, 300, "all status to be written", 0.5)
        _tell("all told", begun)
        made = self._asked()
        return [
            Figure("ready -> all gateways provisioned", seconds, "s", note=f"{5 * self._count:,} objects applied"),
            Figure("work for it, and for status", _worked(self._replica.child.pid) - worked, "s CPU"),
            Figure("requests for it, and for status", made.total(), "", note=_said(made)),
            Figure("memory then", resident(self._replica.child.pid) / 1e6, "MB"),
        ]

    async def _all_applied(self):
        found = await figures_of(self._replica.admin)
        return found["xdserve_applied_gateways"] == found["xdserve_wanted_gateways"] == self._count

    async def _all_told(self):
        return (await figures_of(self._replica.admin))["xdserve_status_writes_total", "written"] >= self._count

    async def _edits(self, stack):
        pod = await self._cluster.gateway(stack)
        self._cluster.apiserver.apply(weighed(v1=0, v2=100), namespace=NAMESPACE)
        await self._cluster.programmed("TrafficPolicy", "InferenceService")
        self._asked()
        before = await figures_of(self._replica.admin)
        took = [await self._edit(("v1", "v2")[number % 2]) for number in range(EDITS)]
        now, made = await figures_of(self._replica.admin), self._asked()
        moved = Counter({name: now[name] - before[name] for name in now if name in before})
        sent = sum(value for name, value in moved.items() if name[0] == "xdserve_resources_sent_total") / EDITS
        waits = f"median of {EDITS}, worst {1000 * max(took):.1f}; p90 {1000 * quantile(took, 0.9):.1f}"
        return [
            Figure(
                "memory of a gateway's Envoy", resident(pod.envoy.child.pid) / 1e6, "MB", note=f"after {EDITS} edits"
            ),
            Figure("apiserver's answer to an edit -> first answer by it", 1000 * median(took), "ms", note=waits),
            Figure("an edit: services planned", moved["xdserve_planned_services_total"] / EDITS, "", "1"),
            Figure("an edit: resources sent", sent, "", "1"),
            Figure("an edit: requests to the apiserver", made.total() / EDITS, "", "1", _said(made)),
        ]

    async def _edit(self, variant):
        """Seconds; the next one begins when the status says it."""
        path = PATHS["TrafficPolicy"].format(NAMESPACE, NAME)
        split = weighed(**{"v1": 0, "v2": 0, variant: 100})
        async with await self._cluster.apiserver.client() as client:
            written = await Calls(client)("PATCH", path, {"spec": split["spec"]}, content_type=MERGE)
        begun = time.perf_counter()
        while await self._cluster.ask() != variant:
            pass
        seconds = time.perf_counter() - begun
        await wait_until(lambda: self._observed(written["metadata"]["generation"]), 10, "the status of an edit", 0.02)
        return seconds

    def _observed(self, generation):
        found = self._cluster.conditions("TrafficPolicy")
        told = next(one for one in found if one["type"] == "Programmed")
        return told["observedGeneration"] == generation and told["status"] == "True"

    async def _again(self, children):
        """The gateways are there: nothing is to be written."""
        assert self._replica.child.stop() == 0
        self._asked()
        found = await self._start(children, "start again")
        await wait_until(self._all_applied, 60, "the gateways to be looked at", 0.1)
        made = self._asked()
        writes = sum(number for (verb, what), number in made.items() if verb in WRITES and what != "tokenreviews")
        return [*found, Figure("start again: objects written", writes, "", "0", _said(made))]

    def _asked(self):
        """Requests since this was asked last, but those within its own namespace: for the Lease come some every 2 s."""
        before, self._before = self._before, self._audit.made()
        return Counter({key: number for key, number in (self._before - before).items() if not key[1].startswith(OWN)})


def _worked(pid):
    """CPU seconds of a process since it began."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _said(made):
    words = Counter()
    for (verb, resource), number in made.items():
        words[f"{verb} {resource}"] += number
    return ", ".join(f"{number} {word}" for word, number in words.most_common())


def _tell(what, begun):
    print(f"{what} after {time.perf_counter() - begun:.1f} s", file=sys.stderr)
