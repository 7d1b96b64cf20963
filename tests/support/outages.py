"""What tests of outages share: `async with scene(...) as scene` is a cluster whose gateway serves a steady load.

Replicas of xdserve reach the apiserver through one relay, and gateways reach the replicas through another: what is cut
there hears nothing, while the test goes on to write.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from bootstrap.manifests import AUDIENCE
from tests.support import chart
from tests.support.cluster import GATEWAY_PORT, NAME, Cluster, Replica, model_servers, weighed
from tests.support.kube_objects import inference_service, path, policy, service
from tests.support.pod import Pod
from tests.support.processes import Children
from tests.support.relay import Relay
from tests.support.tokens import Token
from tests.support.wait import wait_until
from xdserve.demo.driver import Traffic
from xdserve.kube import parts
from xdserve.kube.resources import RESOURCES
from xdserve.kube.source import CLUSTER

CONNECTIONS, PAUSE = 4, 0.05
"""Of the load: some 70 requests a second, which leaves the machine to what is tested."""


class Scene:
    """A cluster, replicas of xdserve, a gateway's pod and a load."""

    def __init__(self, cluster, stack, to_apiserver, entrance):
        self.cluster, self.apiserver, self.namespace = cluster, cluster.apiserver, cluster.namespace
        self.to_apiserver, self.entrance = to_apiserver, entrance
        self.children = stack.enter_context(Children(cluster.folder))
        self.token_file = cluster.folder / "token"
        self.token = Token(self.apiserver, chart.NAMESPACE, chart.NAME)
        self.pod = self.pod_token = self.load = None
        self._stack = stack
        self._write_kubeconfig()

    def _write_kubeconfig(self):
        """As in a pod: a token in a file, and an apiserver that is reached through the network."""
        self.token.write(self.token_file)
        path = self.apiserver.write_kubeconfig(self.cluster.kubeconfig, token_file=self.token_file)
        path.write_text(path.read_text().replace(self.apiserver.url, f"https://{self.to_apiserver.address}"))

    def replica(self, name="xdserve-0"):
        """One that is yet to be started; gateways find it."""
        made = Replica(self.cluster, name, entrance=self.entrance.address)
        self.entrance.to.append(tuple(made.xds.rsplit(":", 1)))
        return made

    async def serve(self, models):
        """Apply the sample, with all weight on v1, and put load on its gateway as soon as that serves."""
        self.cluster.deploy(models)
        self.cluster.apiserver.apply(weighed(v1=100, v2=0, v3=0), namespace=self.namespace)
        await wait_until(lambda: len(self.cluster.manifests()) == len(parts.KINDS), 20, "the manifests to appear")
        self.pod_token = Token(self.apiserver, self.namespace, f"{NAME}-gateway", [AUDIENCE])
        pod = Pod(self.cluster.folder, self.cluster.manifests(), token=self.pod_token.text)
        self.pod = await self._stack.enter_context(pod).started()
        await self.cluster.programmed("TrafficPolicy", "InferenceService")
        host = f"{NAME}-{self.namespace}.example.com"
        request = f"GET /v1/models/{NAME} HTTP/1.1\r\nhost: {host}\r\n\r\n".encode()
        load = Traffic("127.0.0.1", GATEWAY_PORT, request, connections=CONNECTIONS, pause=PAUSE)
        self.load = await self._stack.enter_async_context(load.running())
        assert set(await self.answers()) == {"v1"}

    async def weigh(self, **weights):
        """Edit the policy, as kubectl does."""
        await asyncio.to_thread(self.apiserver.apply, weighed(**weights), namespace=self.namespace)

    async def create(self, *documents):
        for document in documents:
            await asyncio.to_thread(self.apiserver.call, "POST", path(document), document)

    async def delete(self, *documents):
        for document in documents:
            where = f"{path(document)}/{document['metadata']['name']}"
            await asyncio.to_thread(self.apiserver.call, "DELETE", where)

    async def answers(self, requests=40):
        """How many answers to the load come from which variant, from now on."""
        tally = self.load.count()
        await self.load.until(tally, requests=requests)
        return dict(tally.variants)

    async def live(self, variant, seconds=30):
        """Wait until all answers are of a variant."""

        async def only():
            return set(await self.answers(10)) == {variant}

        await wait_until(only, seconds, f"{variant} alone to answer")

    def unharmed(self):
        """No request of the load has failed since it began; how many there were is no matter."""
        assert self.load.failed == 0
        self.pod.envoy.child.check()

    async def held(self, replica):
        """Number of objects that a replica holds, by kind."""
        status, text = await get(replica, "/metrics")
        assert status == 200
        families, followed = text_string_to_metric_families(text), {one.kind for one in RESOURCES}
        return {
            sample.labels["kind"]: int(sample.value)
            for family in families
            for sample in family.samples
            if sample.name == "xdserve_objects" and sample.labels["kind"] in followed
        }

    def there(self):
        """Number of objects that the cluster has, by kind."""
        return {one.kind: self._number(one) for one in RESOURCES}

    def _number(self, resource):
        """Without reading all of them again and again."""
        page = self.apiserver.call("GET", f"{resource.path(resource.versions[0], None)}?limit=1")
        return len(page["items"]) + page["metadata"].get("remainingItemCount", 0)

    async def same(self, *replicas, seconds=30):
        """Wait until replicas hold what the cluster has, by number: nothing is lost, and nothing stale is left."""
        for replica in replicas:

            async def probe(one=replica):
                return await self.held(one) == await asyncio.to_thread(self.there)

            try:
                await wait_until(probe, seconds, every=0.1)
            except TimeoutError as error:
                raise AssertionError(f"holds {await self.held(replica)}, there are {self.there()}") from error

    async def serve_for(self, names, *replicas):
        """Wait until replicas have gateways for these targets, and for no others."""
        for replica in replicas:

            async def probe(one=replica):
                _, text = await get(one, "/debug/gateways")
                return {one["name"].partition("/")[2] for one in json.loads(text)} == names

            await wait_until(probe, 20, f"gateways for {', '.join(sorted(names))} alone", 0.1)

    async def agree(self, *replicas):
        """Wait until replicas have the same of the gateway under load: versions are hashes of what is served."""

        async def probe():
            path = f"/debug/resources?gateway={self.namespace}/{NAME}"
            return len({await get(one, path) for one in replicas}) == 1

        await wait_until(probe, 20, "the replicas to agree", 0.1)


async def troubles(replica):
    """What a replica says of the cluster as a whole, and not of single objects."""
    _, text = await get(replica, "/debug/errors")
    return [one["message"] for one in json.loads(text) if (one["source"] or {}).get("file") == CLUSTER]


async def get(replica, path):
    """Status and text of one of its admin endpoints; 0 where nobody listens."""
    try:
        async with (
            aiohttp.ClientSession(trust_env=False) as session,
            session.get(f"http://127.0.0.1:{replica.admin}{path}") as answer,
        ):
            return answer.status, await answer.text()
    except aiohttp.ClientError:
        return 0, ""


def target(namespace, name):
    """An InferenceService with its Service and the policy that is attached to it."""
    return inference_service(namespace, name), service(namespace, f"{name}-predictor"), policy(namespace, name)


@asynccontextmanager
async def scene(apiserver, namespace, folder, network, *replicas):
    """A scene whose gateway serves under load, with replicas of these names that are ready; the first leads."""
    async with AsyncExitStack() as stack:
        to_apiserver = await stack.enter_async_context(Relay("127.0.0.1"))
        entrance = await stack.enter_async_context(Relay(network.address()))
        models = await stack.enter_async_context(model_servers(network))
        to_apiserver.to.append(("127.0.0.1", apiserver.port))
        made = Scene(Cluster(apiserver, namespace, folder, network), stack, to_apiserver, entrance)
        running = [made.replica(name) for name in replicas]
        for replica in running:
            await replica.started(made.children)
            if replica is running[0]:
                await wait_until(made.cluster.leader, 20, "the first to lead")
        await made.serve(models)
        yield made, *running
        made.unharmed()
